"""The commands that describe and convert checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from incontext.errors import InputError


def info(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="Bundled name, folder, .safetensors or .pth file, hub id, or a prompt file."
        ),
    ],
    thumbnail: Annotated[
        Path | None,
        typer.Option(help="File for the thumbnail of a prompt file, NAME.png."),
    ] = None,
) -> None:
    """Describe a checkpoint or a prompt file.

    Prints file, layout, size and configuration of a checkpoint; of a prompt file what it was made
    of, which checkpoint it is for and how it did. Exit code: 0 done, 2 the input was wrong.
    """
    from dataclasses import asdict

    from incontext.checkpoints.checkpoint import build, read_config, read_state
    from incontext.checkpoints.convert import layout_of
    from incontext.checkpoints.location import locate
    from incontext.inference.prompt import is_prompt

    if is_prompt(checkpoint):
        return _prompt_info(Path(checkpoint), thumbnail)
    if thumbnail:
        raise InputError("--thumbnail is for prompt files")
    path = locate(checkpoint)
    state, config = read_state(path), read_config(path)
    model = build(state, config, path)
    layout = "incontext" if config and "incontext" in config else layout_of(state)
    count = sum(p.numel() for p in model.parameters())
    types = ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in state.values()}))
    typer.echo(f"file        {path}")
    typer.echo(f"layout      {layout}")
    typer.echo(f"parameters  {count / 1e6:.2f} M, stored as {types}")
    for key, value in asdict(model.config).items():
        typer.echo(f"{key:<18}{value}")


def _prompt_info(path: Path, thumbnail: Path | None) -> None:
    """Print what a prompt file says about itself; write its thumbnail where asked to."""
    from PIL import Image

    from incontext.inference.prompt import Prompt

    prompt = Prompt.load(path)
    typer.echo(f"file        {path}, {path.stat().st_size / 1e6:.1f} MB")
    typer.echo(f"checkpoint  {prompt.model_name or 'unnamed'}, fingerprint {prompt.checkpoint}")
    typer.echo(f"kind        {prompt.kind}, {prompt.examples} examples")
    for index in prompt.ids:
        color = "#{:02x}{:02x}{:02x}".format(*prompt.colors[index])
        typer.echo(f"id {index:<9}{prompt.names[index]}, {color}")
    for key, value in prompt.provenance.items():
        parts = value.items() if isinstance(value, dict) else ()
        text = ", ".join(f"{name} {part}" for name, part in parts) or value
        if text is not None and text is not False:
            typer.echo(f"{key:<12}{text}")
    if thumbnail and prompt.thumbnail is None:
        raise InputError(f"{path} was made without a thumbnail")
    if thumbnail and prompt.thumbnail is not None:
        if thumbnail.suffix.lower() != ".png":
            raise InputError(f"--thumbnail {thumbnail}; accepted: NAME.png")
        Image.fromarray(prompt.thumbnail).save(thumbnail)


def convert(
    source: Annotated[
        str, typer.Argument(help="Checkpoint to read: bundled name, folder, file or hub id.")
    ],
    target: Annotated[Path, typer.Argument(help="Folder to write; a .pth file for official.")],
    layout: Annotated[
        str, typer.Option(help="Layout to write: official, transformers or incontext.")
    ] = "incontext",
    dtype: Annotated[
        str | None,
        typer.Option(help="Number type to store, if another: float32, float16 or bfloat16."),
    ] = None,
) -> None:
    """Convert a checkpoint to another layout.

    Official checkpoints go between the official layout, transformers' and ours; those trained here
    exist in ours only. Exit code: 0 done, 2 the input was wrong.
    """
    import torch

    from incontext.checkpoints.checkpoint import load, save
    from incontext.checkpoints.convert import LAYOUTS

    if layout not in LAYOUTS:
        raise InputError(f"--layout {layout!r}; accepted: {', '.join(LAYOUTS)}")
    types = {None: None, "float32": torch.float32, "float16": torch.float16,
             "bfloat16": torch.bfloat16}  # fmt: skip
    if dtype not in types:
        raise InputError(f"--dtype {dtype!r}; accepted: float32, float16, bfloat16")
    if layout == "official" and target.is_dir():
        raise InputError(f"{target} is a folder; the official layout is one .pth file")
    if layout != "official" and (target.is_file() or target.suffix in (".pth", ".safetensors")):
        raise InputError(
            f"{target}: the {layout} layout is a folder; --layout official is one .pth file"
        )
    typer.echo(f"wrote {save(load(source), target, layout=layout, dtype=types[dtype])}")
