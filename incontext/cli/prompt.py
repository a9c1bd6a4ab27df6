"""The command that encodes examples into a prompt file."""

from pathlib import Path
from typing import Annotated

import typer

from incontext.cli.common import PrecisionOptions, option_groups
from incontext.cli.examples import PromptOptions
from incontext.cli.segment import MAX_LINES, Chunk
from incontext.errors import InputError, check_count


@option_groups
def prompt(
    out: Annotated[Path, typer.Option(help="File to write, NAME.safetensors.")],
    *,
    example_options: PromptOptions,
    chunk: Chunk = None,
    half: Annotated[
        bool, typer.Option(help="Store float16, which halves the size of the file.")
    ] = False,
    model: PrecisionOptions,
) -> None:
    """Encode examples once, into a prompt file.

    `incontext segment --prompt FILE` uses it, here or on another machine with the same checkpoint.
    Exit code: 0 done, 1 labels were left out, 2 the input was wrong.
    """
    from incontext.checkpoints.location import locate
    from incontext.inference.prompt import prompt_path

    prompt_path(out)
    check_count("--chunk", chunk)
    files = example_options.files()
    if not files:
        raise InputError(
            "nothing to encode: give --example IMAGE MASK (repeated), or --examples-from PATH"
        )
    examples = files.read()
    predictor = model.open(locate(model.checkpoint), model.dtype)
    encoded_prompt = files.encode(
        predictor, examples, chunk=chunk, half=half, spill=example_options.spill
    )
    encoded_prompt.save(out)
    count = encoded_prompt.examples
    ids = ", ".join(map(str, encoded_prompt.ids[:MAX_LINES]))
    size = f"{encoded_prompt.nbytes / 1e6:.1f} MB"
    typer.echo(f"{count} example{'s' * (count != 1)}, ids {ids}, {size}: {out}")
