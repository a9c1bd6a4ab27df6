"""The training commands: parse, call, print."""

from pathlib import Path
from typing import Annotated

import typer

from incontext.cli.arguments import DEFAULT

Sets = Annotated[list[Path], typer.Argument(help="NAME.tar, or folders of images/ + labels/.")]
Run = Annotated[Path, typer.Option(help="Folder of the run; a state in it is resumed.")]
Threads = Annotated[int, typer.Option(help="CPU threads.", min=1)]
Workers = Annotated[int, typer.Option(help="Processes that plan episodes ahead.", min=0)]


def train(
    sets: Sets,
    recipe: Annotated[
        Path, typer.Option(help="JSON: model, config, cache, recipe, weights, mixture.")
    ],
    out: Run,
    init: Annotated[str | None, typer.Option(help="Checkpoint to start from.")] = None,
    until: Annotated[int | None, typer.Option(help="Stop at this step.", min=0)] = None,
    validation: Annotated[
        list[Path] | None, typer.Option(help="A set to judge by on the way; repeat for more.")
    ] = None,
    threads: Threads = 2,
    workers: Workers = 0,
) -> None:
    """Train by in-context coloring; writes a checkpoint (averaged weights) into the folder.

    On several GPUs or processes: torchrun --nproc-per-node 4 -m incontext train ...
    """
    import torch

    from incontext.training.trainer import train_from_file

    torch.set_num_threads(threads)
    weights = train_from_file(recipe, sets, out, init, until, validation or [], workers)
    typer.echo(f"wrote {weights}")


def finetune(
    sets: Sets,
    out: Run,
    checkpoint: Annotated[
        str, typer.Option(help="Bundled name, folder, .safetensors or .pth file, or hub id.")
    ] = DEFAULT,
    pictures: Annotated[
        int | None,
        typer.Option(help="Learn from so many of each set, judge by the rest; default: 4 of 5."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Learn low-rank updates, merged on saving; default: all.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps.", min=1)] = 200,
    rate: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    size: Annotated[
        int | None, typer.Option(help="Of the views, pixels; default: the checkpoint's.")
    ] = None,
    pictures_a_step: Annotated[
        int, typer.Option(help="Examples and queries together.", min=2)
    ] = 24,
    accumulate: Annotated[
        int, typer.Option(help="Pieces that a step is computed in: bounds memory.", min=1)
    ] = 1,
    precision: Annotated[str, typer.Option(help="no (float32) or bf16.")] = "no",
    episodes: Annotated[int, typer.Option(help="To judge by, of each set.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Which pictures are held out, and all chance.")] = 0,
    threads: Threads = 2,
    workers: Workers = 0,
) -> None:
    """Train a checkpoint further on your own labelled pictures.

    Prints mean IoU on the pictures held out, before and after, and writes a checkpoint.
    """
    import torch

    from incontext.training.finetune import finetune as run

    torch.set_num_threads(threads)
    outcome = run(
        sets, out, checkpoint, pictures=pictures, rank=rank, size=size, steps=steps, rate=rate,
        pictures_a_step=pictures_a_step, accumulate=accumulate, precision=precision,
        episodes=episodes, seed=seed, workers=workers,
    )  # fmt: skip
    typer.echo(
        f"learned from {outcome.trained} pictures, judged by {outcome.held_out} held out "
        "(mean IoU in percent)"
    )
    for count, before in outcome.before.items():
        typer.echo(f"  {count} example{'s' * (count > 1)}: {before:.1f} -> "
                   f"{outcome.after[count]:.1f}")  # fmt: skip
    typer.echo(f"wrote {outcome.weights}")
