"""The commands that train and finetune checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from incontext.cli.common import DEFAULT, Checkpoint, Threads

Sets = Annotated[
    list[Path], typer.Argument(help="Sets: NAME.tar, or folders of images/ + labels/.")
]
Run = Annotated[Path, typer.Option(help="Folder of the run; a run that stopped in it is resumed.")]
Workers = Annotated[int, typer.Option(help="Processes that plan episodes ahead.", min=0)]


def train(
    sets: Sets,
    recipe: Annotated[Path, typer.Option(help="Recipe as a JSON file, see docs/training.md.")],
    out: Run,
    init: Annotated[str | None, typer.Option(help="Checkpoint to start from.")] = None,
    until: Annotated[int | None, typer.Option(help="Stop at this step.", min=0)] = None,
    validation: Annotated[
        list[Path] | None, typer.Option(help="Set to validate on; repeat it for more.")
    ] = None,
    threads: Threads = 2,
    workers: Workers = 0,
) -> None:
    """Train a model on sets of labelled images.

    Writes a checkpoint (averaged weights), a log and curves into the folder. For several GPUs or
    processes: torchrun --nproc-per-node 4 -m incontext train ...
    """
    import torch

    from incontext.training.from_file import train_from_file

    torch.set_num_threads(threads)
    weights = train_from_file(recipe, sets, out, init, until, validation or [], workers)
    typer.echo(f"wrote {weights}")


def finetune(
    sets: Sets,
    out: Run,
    checkpoint: Checkpoint = DEFAULT,
    pictures: Annotated[
        int | None,
        typer.Option(help="Training images per set; the rest are held out. Default: 80 %."),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            help="Rank of low-rank updates, merged on saving; by default all weights train."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps.", min=1)] = 200,
    rate: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the training views in pixels, if not the model's.")
    ] = None,
    pictures_a_step: Annotated[
        int, typer.Option(help="Images in one step, examples and queries together.", min=2)
    ] = 24,
    accumulate: Annotated[
        int, typer.Option(help="Pieces that a step is computed in; more need less memory.", min=1)
    ] = 1,
    precision: Annotated[str, typer.Option(help="Mixed precision: no (float32) or bf16.")] = "no",
    episodes: Annotated[int, typer.Option(help="Validation episodes per set.", min=1)] = 100,
    seed: Annotated[
        int, typer.Option(help="Random seed; it also decides which images are held out.")
    ] = 0,
    threads: Threads = 2,
    workers: Workers = 0,
) -> None:
    """Train a checkpoint further on your images.

    Prints mean IoU on the images held out, before and after, and writes a checkpoint.
    """
    import torch

    from incontext.training.finetune import finetune as run

    torch.set_num_threads(threads)
    outcome = run(
        sets, out, checkpoint, train_images=pictures, rank=rank, size=size, steps=steps,
        learning_rate=rate, images_per_step=pictures_a_step, accumulate=accumulate,
        precision=precision, episodes=episodes, seed=seed, workers=workers,
    )  # fmt: skip
    typer.echo(
        f"learned from {outcome.train_count} pictures, judged by {outcome.held_out} held out "
        "(mean IoU in percent)"
    )
    for count, before in outcome.before.items():
        typer.echo(f"  {count} example{'s' * (count > 1)}: {before:.1f} -> "
                   f"{outcome.after[count]:.1f}")  # fmt: skip
    typer.echo(f"wrote {outcome.weights}")


def calibrate(
    sets: Sets,
    out: Annotated[Path, typer.Option(help="Folder for the new checkpoint.")],
    checkpoint: Checkpoint = DEFAULT,
    episodes: Annotated[int, typer.Option(help="Queries of each set.", min=10)] = 200,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    threads: Threads = 2,
) -> None:
    """Teach a checkpoint how sure it may be.

    Learned are presence (whether an object is in a picture), confidence of pixels, and quality of
    masks; masks of objects that are there stay as they are. Half of the queries drawn from the sets
    lack the object.
    """
    import torch
    from tqdm import tqdm

    from incontext.training.from_file import calibrate_from_files

    torch.set_num_threads(threads)
    with tqdm(total=episodes * len(sets), unit="query", disable=None) as bar:
        weights = calibrate_from_files(checkpoint, sets, out, episodes, seed, bar.update)
    typer.echo(f"wrote {weights}")
