"""The commands about the worth of labelled images: tune and doctor."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from incontext.cli.common import ModelOptions, Progress, Threads, option_groups
from incontext.cli.examples import ExampleFiles, ExampleOptions
from incontext.errors import InputError

if TYPE_CHECKING:
    from incontext.evaluation.labelled_set import LabelledSet
    from incontext.inference.example import Example

Sets = Annotated[
    list[Path] | None,
    typer.Argument(help="Sets: folders or .tar of images/ + labels/ (8-bit ids, 255 is unknown)."),
]
Space = Annotated[
    str, typer.Option(help="What is learned: tokens, or pixels of the example and its target.")
]
Steps = Annotated[int, typer.Option(help="Optimizer steps per painting that a query takes.", min=1)]
Seed = Annotated[
    int, typer.Option(help="Random seed; it also decides which images are drawn.", min=0)
]
UNPROVEN = 3  # exit code: tuning was not proven to help
HARMFUL = 4  # exit code: some examples hurt


@option_groups
def tune(
    out: Annotated[Path, typer.Option(help="Prompt file to write, NAME.safetensors.")],
    sets: Sets = None,
    *,
    example_options: ExampleOptions,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of the run, resumed if it was killed; by default OUT.run."),
    ] = None,
    space: Space = "tokens",
    steps: Steps = 100,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 0.02,
    seed: Seed = 0,
    thumbnail: Annotated[
        bool, typer.Option(help="Store a small image of an example in the file.")
    ] = True,
    model: ModelOptions,
    threads: Threads = 2,
) -> None:
    """Learn a prompt; the model stays as it is.

    Takes 2 to thousands of labelled images of a scene or dataset. Measures on held-out ones whether
    tuning helps, and writes what does best: the tuned prompt, or the best untuned one. Exit code: 0
    tuning helps, 3 it was not proven to help, 1 labels were left out, 2 the input was wrong.
    """
    import torch

    from incontext.checkpoints.location import locate
    from incontext.inference.prompt import prompt_path
    from incontext.tuning.report import check_drawing, summary, write
    from incontext.tuning.settings import Settings
    from incontext.tuning.tune import tune as learn

    path, folder = prompt_path(out), run or out.with_suffix(".run")
    check_drawing()
    settings = Settings(space=space, steps=steps, learning_rate=rate, seed=seed)
    torch.set_num_threads(threads)
    files = example_options.files()
    predictor = model.open(locate(model.checkpoint))
    dataset = read_examples(files, sets, predictor.size)
    if (folder / "state.pt").is_file():
        typer.echo(f"going on with the run in {folder}", err=True)
    with Progress() as progress:
        outcome = learn(
            predictor, dataset, folder, kind=files.kind, settings=settings, thumbnail=thumbnail,
            on_progress=progress.update,
        )  # fmt: skip
    outcome.prompt.save(path)
    write(outcome, folder)
    for line in summary(outcome):
        typer.echo(line)
    typer.echo(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB), {folder / 'curve.png'}")
    if not outcome.comparison.improves:
        raise typer.Exit(UNPROVEN)


@option_groups
def doctor(
    sets: Sets = None,
    out: Annotated[Path, typer.Option(help="Report to write, NAME.html.")] = Path("doctor.html"),
    *,
    example_options: ExampleOptions,
    model: ModelOptions,
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Check what examples are worth.

    Segments each example with the others. Predicts mIoU on new images for 1, 2, 4 … examples, names
    examples that hurt, near-duplicates, ids that are confused or too small, and proposes a small
    subset. Exit code: 0 nothing wrong, 4 some examples hurt, 1 labels were left out, 2 the input
    was wrong.
    """
    import torch

    from incontext.checkpoints.location import locate
    from incontext.evaluation.doctor import examine
    from incontext.evaluation.doctor_report import report_lines, report_page

    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise InputError(f"--out {out}; accepted: a file to write, NAME.html")
    torch.set_num_threads(threads)
    files = example_options.files()
    predictor = model.open(locate(model.checkpoint))
    dataset = read_examples(files, sets, predictor.size)
    with Progress() as progress:
        diagnosis = examine(
            predictor, dataset, kind=files.kind, seed=seed,
            on_progress=lambda step, total: progress.update(
                "asking examples for each other", step, total
            ),
        )  # fmt: skip
    for line in report_lines(diagnosis):
        typer.echo(line)
    report_page(diagnosis, out)
    typer.echo(f"wrote {out}")
    if diagnosis.harmful:
        raise typer.Exit(HARMFUL)


def read_examples(files: ExampleFiles, sets: list[Path] | None, size: int) -> "LabelledSet":
    """Read all examples that a command was given, at the model's size.

    Raises:
        InputError: there are none, or one cannot be read.
    """
    from incontext.data.pictures import read_metadata
    from incontext.evaluation.labelled_set import LabelledSet

    if not sets and not files:
        raise InputError(
            "no pictures: give folders of images/ + labels/, --example IMAGE MASK, or "
            "--examples-from PATH"
        )
    for name in ("colors", "ignore", "threshold"):
        if sets and files.label_options[name] is not None:
            raise InputError(
                f"--{name.removesuffix('s')} is for --example; labels of a folder are 8-bit ids, "
                "255 means unknown"
            )
    names: dict[int, str] = {}
    for path in sets or []:
        classes = read_metadata(path).get("classes", {})
        if isinstance(classes, dict):
            names |= {int(i): str(n) for i, n in classes.items() if str(i).isdecimal()}
    sources: list[str] = []
    try:
        dataset = LabelledSet.from_examples(
            _iter_examples(files, sets or [], sources), size, sources=sources
        )
    except InputError as error:
        if sets and "no example shows" in str(error):
            raise InputError(
                f"{error}; in a folder 255 means unknown, write the object as 1"
            ) from None
        raise
    absent_ids = [i for i in files.names if i not in dataset.ids]
    if absent_ids:
        raise InputError(f"--name: no picture shows id {absent_ids[0]}")
    names = {**dataset.names, **{i: n for i, n in names.items() if i in dataset.ids}, **files.names}
    return dataset.with_names(names)


def _iter_examples(
    files: ExampleFiles, sets: list[Path], sources: list[str]
) -> Iterator["Example"]:
    """Read the examples of the files, then of the sets; append a name for each to `sources`."""
    from incontext.data.pictures import read_labelled
    from incontext.inference.example import Example
    from incontext.labels.encodings import Labels
    from incontext.labels.partial import mark

    for example in files.iter_examples():
        sources.append(example.source)
        yield example
    for path in sets:
        for name, image, ids in read_labelled(path):
            sources.append(f"{path.stem}/{name}" if len(sets) > 1 or files else name)
            labels = mark(Labels(ids), **files.partial_options)
            yield Example.from_labels(image, labels)
