"""`python -m eval NAME …`: studies of a checkpoint, and the field's datasets by their protocols."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from eval.runs.datasets_cli import add_commands
from eval.runs.options import Checkpoint, SetNames, Sets, Threads, numbers, words
from incontext.checkpoints.location import DEFAULT
from incontext.cli.common import reuse_freed_memory
from incontext.errors import InputError

app = typer.Typer(add_completion=False, no_args_is_help=True)
STUDIES = "Studies of a checkpoint"  # panel of --help


@app.callback()
def describe_program() -> None:
    """Evaluate a checkpoint."""


@app.command("bench", rich_help_panel=STUDIES)
def bench(
    data: Sets,
    checkpoint: Checkpoint = DEFAULT,
    examples: Annotated[str, typer.Option(help="Numbers of examples, with commas.")] = "1,4,16",
    episodes: Annotated[int, typer.Option(help="Number of episodes of each set.")] = 200,
    only: SetNames = "",
    methods: Annotated[
        str,
        typer.Option(
            help="Methods, with commas: CHECKPOINT (its own name), copy, nearest, examples, tuned, "
            "U-Net, one-view. Default: all but the last."
        ),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for bench.json, from which an interrupted run goes on."),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Precision of the model: float32, bfloat16, float16 or int8.")
    ] = "float32",
    thin_to: Annotated[
        int | None,
        typer.Option(
            help="Number of examples whose tokens are kept in full; 0 keeps all. Default: the "
            "model's own.",
            min=0,
        ),
    ] = None,
    same_queries: Annotated[
        bool,
        typer.Option("--paired", help="Segment the same queries for every number of examples."),
    ] = False,
    threads: Threads = 2,
) -> None:
    """Measure mIoU on every set of images, with baselines.

    A second table gives the same images to all methods: examples as they are, a tuned prompt, a
    U-Net trained on them.
    """
    import torch

    from eval.studies.bench import run

    torch.set_num_threads(threads)
    counts = numbers(examples, "--examples")
    run(data, checkpoint, counts, episodes, out, words(only), words(methods), dtype,
        "auto" if thin_to is None else thin_to or None, same_queries)  # fmt: skip


@app.command("passes", rich_help_panel=STUDIES)
def classes_per_pass(
    data: Annotated[Path, typer.Option(help="A set of many classes, NAME.tar.")],
    checkpoint: Checkpoint = DEFAULT,
    limits: Annotated[
        str, typer.Option(help="Numbers of classes in one pass, with commas.")
    ] = "1,2,4,8,25",
    episodes: Annotated[int, typer.Option(help="Number of episodes.")] = 40,
) -> None:
    """Measure how many classes one painting separates."""
    from eval.studies.classes_per_pass import run

    run(data, checkpoint, numbers(limits, "--limits"), episodes)


@app.command("absent", rich_help_panel=STUDIES)
def absence(
    data: Sets,
    checkpoint: Checkpoint = DEFAULT,
    sets: SetNames = "",
    episodes: Annotated[int, typer.Option(help="Number of episodes of each set.")] = 100,
    examples: Annotated[int, typer.Option(help="Number of examples.", min=1)] = 1,
    threads: Threads = 2,
) -> None:
    """Measure what is painted if the object is absent."""
    import torch

    from eval.studies.absence import run

    torch.set_num_threads(threads)
    run(data, checkpoint, words(sets), episodes, examples)


@app.command("calibration", rich_help_panel=STUDIES)
def calibration(
    data: Sets,
    checkpoint: Checkpoint = DEFAULT,
    sets: SetNames = "",
    episodes: Annotated[int, typer.Option(help="Number of episodes of each set.")] = 100,
    examples: Annotated[int, typer.Option(help="Number of examples.", min=1)] = 1,
    views: Annotated[
        bool, typer.Option(help="Show one or two examples also close up and mirrored.")
    ] = True,
    threads: Threads = 2,
) -> None:
    """Test whether confidence and quality mean what they say."""
    import torch

    from eval.studies.calibration import run

    torch.set_num_threads(threads)
    run(data, checkpoint, words(sets), episodes, examples, "auto" if views else False)


@app.command("matters", rich_help_panel=STUDIES)
def ablate_prompt(
    data: Sets,
    checkpoint: Checkpoint = DEFAULT,
    sets: SetNames = "",
    episodes: Annotated[int, typer.Option(help="Number of episodes of each set.")] = 50,
) -> None:
    """Test whether the prompt decides what is painted.

    Compares the example's mask with an erased mask, and with the mask of another class.
    """
    from eval.studies.ablate_prompt import run

    run(data, checkpoint, words(sets), episodes)


@app.command("nearest", rich_help_panel=STUDIES)
def nearest(
    data: Sets,
    checkpoint: Checkpoint = DEFAULT,
    sets: SetNames = "",
    k: Annotated[int, typer.Option("--k", help="Number of examples that a query sees.")] = 16,
    pool: Annotated[
        int, typer.Option(help="Largest number of examples to choose from, for each class.")
    ] = 128,
    queries: Annotated[int, typer.Option(help="Number of queries of each class.")] = 20,
) -> None:
    """Compare the nearest examples with random ones and all."""
    from eval.studies.nearest import run

    run(data, checkpoint, words(sets), k, pool, queries)


@app.command("tuned", rich_help_panel=STUDIES)
def tuned_prompts(
    data: Sets,
    out: Annotated[Path, typer.Option(help="Folder for the prompts and figures.json.")],
    checkpoint: Checkpoint = DEFAULT,
    only: SetNames = "",
    state: Annotated[
        Path, typer.Option(help="Folder of the tuning runs, where interrupted ones go on.")
    ] = Path("out/tuned"),
    space: Annotated[str, typer.Option(help="What is tuned: tokens or pixels.")] = "tokens",
    steps: Annotated[int, typer.Option(help="Steps of tuning.")] = 100,
    threads: Threads = 2,
) -> None:
    """Compare tuned prompts with the best untuned ones.

    Both use the same images and are scored on others of the set.
    """
    import torch

    from eval.studies.tuned import run
    from incontext.tuning.settings import Settings

    torch.set_num_threads(threads)
    run(data, checkpoint, words(only), out, state, Settings(space=space, steps=steps))


@app.command("doctor", rich_help_panel=STUDIES)
def doctor(
    data: Sets,
    checkpoint: Checkpoint = DEFAULT,
    sets: SetNames = "",
    planted: Annotated[int, typer.Option(help="Number of trials with a planted bad mask.")] = 10,
    predicted: Annotated[int, typer.Option(help="Number of trials of the predicted mIoU.")] = 20,
    threads: Threads = 2,
) -> None:
    """Test if the doctor finds bad masks and predicts mIoU."""
    import torch

    from eval.studies.doctor import run

    torch.set_num_threads(threads)
    run(data, checkpoint, words(sets), planted, predicted)


@app.command("video", rich_help_panel=STUDIES)
def video(
    clips: Annotated[int, typer.Option(help="Number of drawn clips, one for each seed.")] = 50,
    frames: Annotated[int, typer.Option(help="Number of frames of a drawn clip.")] = 20,
    objects: Annotated[
        int, typer.Option(help="Number of objects in a drawn clip; 0 draws one to three.")
    ] = 0,
    first: Annotated[int, typer.Option(help="Seed of the first drawn clip.")] = 0,
    data: Annotated[
        Path | None,
        typer.Option(help="Set of clips, NAME.tar of kind video, to read instead."),
    ] = None,
    keep: Annotated[
        str, typer.Option(help="Numbers of frames remembered, with commas.")
    ] = "0,1,4,8",
    rules: Annotated[
        str,
        typer.Option(
            help="Rules of memory, with commas: ours, single (ours, one object a painting), "
            "official."
        ),
    ] = "ours,official",
    checkpoint: Checkpoint = DEFAULT,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for video.json, from which an interrupted run goes on."),
    ] = None,
    threads: Threads = 2,
) -> None:
    """Measure J&F for each memory rule and number of frames."""
    import torch

    from eval.core.clips import draw_clip, read_clips
    from eval.runs.video import run

    torch.set_num_threads(threads)
    if data:
        sources = list(read_clips(data))
    else:
        sources = [draw_clip(s, frames, objects or None) for s in range(first, first + clips)]
    run(sources, checkpoint, numbers(keep, "--keep"), rules.split(","), "instance", out)


@app.command("follow", rich_help_panel=STUDIES)
def follow(
    seed: Annotated[int, typer.Option(help="Seed of the drawn clip.")] = 7,
    frames: Annotated[int, typer.Option(help="Number of frames.")] = 200,
    objects: Annotated[int, typer.Option(help="Number of objects.")] = 3,
    keep: Annotated[int, typer.Option(help="Number of frames remembered.")] = 4,
    checkpoint: Checkpoint = DEFAULT,
    threads: Threads = 2,
) -> None:
    """Follow each object of one long clip: found, lost, back."""
    import torch

    from eval.runs.video import follow as print_story

    torch.set_num_threads(threads)
    print_story(seed, frames, objects, checkpoint, keep)


@app.command("look", rich_help_panel=STUDIES)
def contact_sheet(
    data: Sets,
    out: Annotated[Path, typer.Option(help="Image file to write.")],
    checkpoint: Checkpoint = DEFAULT,
    count: Annotated[int, typer.Option(help="Number of results.")] = 30,
    examples: Annotated[int, typer.Option(help="Number of examples of each result.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the drawn sets, classes and images.")] = 0,
) -> None:
    """Draw results on randomly chosen images on one sheet."""
    from eval.studies.contact_sheet import run

    run(data, checkpoint, count, examples, out, seed)


@app.command("tables", rich_help_panel=STUDIES)
def tables(
    root: Annotated[Path, typer.Option(help="Folder of a clone with its history.")] = Path("."),
    checkpoint: Annotated[
        str, typer.Option(help="Bundled checkpoint whose date is compared.")
    ] = DEFAULT,
    older: Annotated[
        bool, typer.Option("--older", help="Print only tables older than the weights.")
    ] = False,
) -> None:
    """List tables of figures, their commands and dates."""
    from eval.studies.tables import run

    run(root, checkpoint, older)


@app.command("trials", rich_help_panel=STUDIES)
def trials(
    train: Annotated[Path, typer.Option(help="Folder of training sets.")],
    validation: Annotated[Path, typer.Option(help="Folder of validation sets.")],
    out: Annotated[Path, typer.Option(help="Folder for trials.csv; finished trials are skipped.")],
    recipe: Annotated[
        Path, typer.Option(help="Recipe that the trials change, one thing each.")
    ] = Path("recipes/trial.json"),
    only: Annotated[
        list[str] | None, typer.Option(help="Name of a trial; repeat the option for more.")
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="CPU minutes of each trial; 0 takes the recipe's steps.")
    ] = 0,
    init: Annotated[str | None, typer.Option(help="Checkpoint that the trials begin from.")] = None,
    threads: Threads = 1,
) -> None:
    """Train with one change at a time, all for equally long."""
    import torch

    from eval.studies.trials import run

    torch.set_num_threads(threads)
    run(train, validation, recipe, out, only or [], minutes=minutes, init=init)


add_commands(app)


if __name__ == "__main__":
    reuse_freed_memory()
    try:
        app()
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
