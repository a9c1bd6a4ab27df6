"""`python -m eval NAME …`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from eval.runs.datasets_cli import add
from incontext.checkpoints.checkpoint import DEFAULT
from incontext.errors import InputError
from incontext.inference.predictor import THIN_TO

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def names() -> None:
    """Evaluate a checkpoint."""


@app.command()
def bench(
    data: Annotated[Path, typer.Option(help="Folder of NAME.tar + NAME.json.")],
    checkpoint: str = DEFAULT,
    examples: Annotated[str, typer.Option(help="Numbers of examples.")] = "1,4,16",
    episodes: Annotated[int, typer.Option(help="Episodes a set.")] = 200,
    only: Annotated[str, typer.Option(help="Names of sets; all without it.")] = "",
    methods: Annotated[
        str, typer.Option(help="CHECKPOINT, copy, nearest, examples, tuned, U-Net; all without.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for bench.json, which lets a run go on.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, int8.")] = "float32",
    thin_to: Annotated[
        int, typer.Option(help="Examples whose tokens a query sees in full; 0: all.", min=0)
    ] = THIN_TO,
    threads: int = 2,
) -> None:
    """Mean IoU on every still-picture set, beside two baselines without a model.

    A second table has the same pictures for all: examples as they are, a tuned prompt, a U-Net
    trained on them.
    """
    import torch

    from eval.studies.bench import run

    torch.set_num_threads(threads)
    counts = [int(n) for n in examples.split(",")]
    names, chosen = ([s for s in text.split(",") if s] for text in (only, methods))
    run(data, checkpoint, counts, episodes, out, names, chosen, dtype, thin_to or None)


@app.command()
def passes(
    data: Annotated[Path, typer.Option(help="A set of many classes: NAME.tar.")],
    checkpoint: str = DEFAULT,
    limits: Annotated[str, typer.Option(help="Classes in one pass.")] = "1,2,4,8,25",
    episodes: int = 40,
) -> None:
    """How many classes one painting separates well."""
    from eval.studies.classes_per_pass import run

    run(data, checkpoint, [int(n) for n in limits.split(",")], episodes)


@app.command()
def absent(
    data: Annotated[Path, typer.Option(help="Folder of NAME.tar + NAME.json.")],
    checkpoint: str = DEFAULT,
    sets: Annotated[str, typer.Option(help="Sets of several classes.")] = "voc_novel,workshop",
    episodes: Annotated[int, typer.Option(help="Pairs of queries a set.")] = 100,
) -> None:
    """What is painted when the query does not show the object."""
    from eval.studies.absence import run

    run(data, checkpoint, sets.split(","), episodes)


@app.command()
def matters(
    data: Annotated[Path, typer.Option(help="Folder of NAME.tar + NAME.json.")],
    checkpoint: str = DEFAULT,
    sets: Annotated[str, typer.Option(help="Names of sets; all without it.")] = "",
    episodes: Annotated[int, typer.Option(help="Episodes a set.")] = 50,
) -> None:
    """Does the prompt decide: the example's mask erased, and another class's mask."""
    from eval.studies.ablate_prompt import run

    run(data, checkpoint, [s for s in sets.split(",") if s], episodes)


@app.command()
def nearest(
    data: Annotated[Path, typer.Option(help="Folder of NAME.tar + NAME.json.")],
    checkpoint: str = DEFAULT,
    sets: Annotated[str, typer.Option(help="Names of sets; all without it.")] = "",
    k: Annotated[int, typer.Option("--k", help="Examples that a query sees.")] = 16,
    pool: Annotated[int, typer.Option(help="Examples to choose from, at most.")] = 128,
    queries: Annotated[int, typer.Option(help="Queries a class.")] = 20,
) -> None:
    """Examples chosen for each query, against as many at random and against all."""
    from eval.studies.nearest import run

    run(data, checkpoint, [s for s in sets.split(",") if s], k, pool, queries)


@app.command()
def tuned(
    data: Annotated[Path, typer.Option(help="Folder of NAME.tar + NAME.json.")],
    out: Annotated[Path, typer.Option(help="Folder for the prompts and figures.json.")],
    checkpoint: str = DEFAULT,
    only: Annotated[str, typer.Option(help="Names of sets; all without it.")] = "",
    state: Annotated[Path, typer.Option(help="Folder of the runs, which go on there.")] = Path(
        "out/tuned"
    ),
    space: Annotated[str, typer.Option(help="tokens or pixels.")] = "tokens",
    steps: int = 100,
    threads: int = 2,
) -> None:
    """Tuned prompts against the best untuned use of the same pictures, on pictures apart."""
    import torch

    from eval.studies.tuned import run
    from incontext.tuning.tuner import Settings

    torch.set_num_threads(threads)
    names = [s for s in only.split(",") if s]
    run(data, checkpoint, names, out, state, Settings(space=space, steps=steps))


@app.command()
def doctor(
    data: Annotated[Path, typer.Option(help="Folder of NAME.tar + NAME.json.")],
    checkpoint: str = DEFAULT,
    sets: Annotated[str, typer.Option(help="Names of sets; all without it.")] = "",
    planted: Annotated[int, typer.Option(help="Trials with a planted bad mask.")] = 10,
    predicted: Annotated[int, typer.Option(help="Trials of the predicted mIoU.")] = 20,
    threads: int = 2,
) -> None:
    """Does the doctor find planted bad masks, and does its interval hold what is measured?"""
    import torch

    from eval.studies.doctor import run

    torch.set_num_threads(threads)
    run(data, checkpoint, [s for s in sets.split(",") if s], planted, predicted)


@app.command()
def video(
    clips: Annotated[int, typer.Option(help="Drawn clips, seeds 0, 1, …")] = 50,
    frames: Annotated[int, typer.Option(help="Of a drawn clip.")] = 20,
    objects: Annotated[int, typer.Option(help="In a drawn clip; 0: one to three.")] = 0,
    first: Annotated[int, typer.Option(help="Seed of the first drawn clip.")] = 0,
    data: Annotated[Path | None, typer.Option(help="NAME.tar of kind video instead.")] = None,
    keep: Annotated[str, typer.Option(help="Numbers of frames remembered.")] = "0,1,4,8",
    rules: Annotated[
        str, typer.Option(help="ours, single (ours, an object a painting), official.")
    ] = "ours,official",
    checkpoint: str = DEFAULT,
    out: Annotated[Path | None, typer.Option(help="Folder for what is done already.")] = None,
    threads: int = 2,
) -> None:
    """J&F of objects through clips, for each rule and number of frames remembered."""
    import torch

    from eval.core import clips as source
    from eval.runs.video import run

    torch.set_num_threads(threads)
    if data:
        found = list(source.of_set(data))
    else:
        seeds = range(first, first + clips)
        found = [source.drawn(seed, frames, objects or None) for seed in seeds]
    counts = [int(n) for n in keep.split(",")]
    run(found, checkpoint, counts, rules.split(","), "instance", out)


@app.command()
def follow(
    seed: Annotated[int, typer.Option(help="Of a drawn clip.")] = 7,
    frames: int = 200,
    objects: int = 3,
    keep: Annotated[int, typer.Option(help="Frames remembered.")] = 4,
    checkpoint: str = DEFAULT,
    threads: int = 2,
) -> None:
    """What becomes of each object of one long clip: seen, mixed up, gone, back."""
    import torch

    from eval.runs.video import follow as print_story

    torch.set_num_threads(threads)
    print_story(seed, frames, objects, checkpoint, keep)


@app.command()
def look(
    data: Annotated[Path, typer.Option(help="Folder of NAME.tar + NAME.json.")],
    out: Annotated[Path, typer.Option(help="Picture to write.")],
    checkpoint: str = DEFAULT,
    count: int = 30,
    examples: int = 1,
    seed: int = 0,
) -> None:
    """Results on pictures picked before looking, on one sheet for the eye."""
    from eval.studies.contact_sheet import run

    run(data, checkpoint, count, examples, out, seed)


@app.command()
def trials(
    train: Annotated[Path, typer.Option(help="Folder of training sets.")],
    validation: Annotated[Path, typer.Option(help="Folder of validation sets.")],
    out: Annotated[Path, typer.Option(help="Folder for trials.csv; what it holds is not redone.")],
    recipe: Path = Path("recipes/trial.json"),
    only: Annotated[list[str] | None, typer.Option(help="A trial; repeat for more.")] = None,
    minutes: Annotated[
        float, typer.Option(help="CPU minutes of each trial; 0: the recipe's steps.")
    ] = 0,
    init: Annotated[str | None, typer.Option(help="Checkpoint that trials begin from.")] = None,
    threads: int = 1,
) -> None:
    """One change at a time on a small equal training budget."""
    import torch

    from eval.studies.trials import run

    torch.set_num_threads(threads)
    run(train, validation, recipe, out, only or [], minutes=minutes, init=init)


add(app)


if __name__ == "__main__":
    try:
        app()
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
