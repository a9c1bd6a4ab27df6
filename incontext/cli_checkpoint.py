"""The commands about checkpoints: parse, call, print."""

from pathlib import Path
from typing import Annotated

import typer

from incontext.errors import InputError


def info(checkpoint: Annotated[str, typer.Argument(help="See --checkpoint of segment.")]) -> None:
    """Print what a checkpoint is: its file, layout, shape and size."""
    from dataclasses import asdict

    from incontext.checkpoint import build, locate, read_config, read_state
    from incontext.convert import layout_of

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


def convert(
    source: Annotated[str, typer.Argument(help="Bundled name, folder, file or hub id.")],
    target: Annotated[Path, typer.Argument(help="Folder, or .pth file for official.")],
    layout: Annotated[str, typer.Option(help="official, transformers or incontext.")] = "incontext",
    dtype: Annotated[str | None, typer.Option(help="Store as float32, float16, bfloat16.")] = None,
) -> None:
    """Convert a checkpoint between the official layout, transformers' and ours."""
    import torch

    from incontext.checkpoint import load, save
    from incontext.convert import LAYOUTS

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
