"""The commands about checkpoints: parse, call, print."""

from pathlib import Path
from typing import Annotated

import typer

from incontext.errors import InputError


def info(
    checkpoint: Annotated[
        str, typer.Argument(help="See --checkpoint of segment; or a prompt file.")
    ],
    thumbnail: Annotated[
        Path | None, typer.Option(help="Of a prompt file: picture to write, .png.")
    ] = None,
) -> None:
    """Print what a checkpoint is (file, layout, shape, size), or a prompt file."""
    from dataclasses import asdict

    from incontext.checkpoints.checkpoint import build, locate, read_config, read_state
    from incontext.checkpoints.convert import layout_of
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
    """Print what a prompt file says of itself."""
    from PIL import Image

    from incontext.inference.prompt import Prompt

    prompt = Prompt.load(path)
    typer.echo(f"file        {path}, {path.stat().st_size / 1e6:.1f} MB")
    typer.echo(f"checkpoint  {prompt.model_name or 'unnamed'}, fingerprint {prompt.checkpoint}")
    typer.echo(f"kind        {prompt.kind}, {prompt.examples} examples")
    for index in prompt.ids:
        shown = "#{:02x}{:02x}{:02x}".format(*prompt.colors[index])
        typer.echo(f"id {index:<9}{prompt.names[index]}, {shown}")
    for key, value in prompt.made.items():
        parts = value.items() if isinstance(value, dict) else ()
        said = ", ".join(f"{name} {one}" for name, one in parts) or value
        if said is not None and said is not False:
            typer.echo(f"{key:<12}{said}")
    if thumbnail and prompt.thumbnail is None:
        raise InputError(f"{path} was made without a thumbnail")
    if thumbnail and prompt.thumbnail is not None:
        if thumbnail.suffix.lower() != ".png":
            raise InputError(f"--thumbnail {thumbnail}; accepted: NAME.png")
        Image.fromarray(prompt.thumbnail).save(thumbnail)


def convert(
    source: Annotated[str, typer.Argument(help="Bundled name, folder, file or hub id.")],
    target: Annotated[Path, typer.Argument(help="Folder, or .pth file for official.")],
    layout: Annotated[str, typer.Option(help="official, transformers or incontext.")] = "incontext",
    dtype: Annotated[str | None, typer.Option(help="Store as float32, float16, bfloat16.")] = None,
) -> None:
    """Convert a checkpoint between the official layout, transformers' and ours."""
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
