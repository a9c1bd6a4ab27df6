"""The commands that look at labelled pictures: tune and doctor. Parse, call, print."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from incontext.cli.arguments import DEFAULT
from incontext.cli.device import Checkpoint, Device, open_predictor
from incontext.cli.examples import (
    Colors,
    Format,
    From,
    Ignore,
    Images,
    Kind,
    Names,
    Negative,
    Pairs,
    Shown,
    Source,
    Threshold,
    Unlabelled,
)
from incontext.cli.progress import Progress
from incontext.errors import InputError

if TYPE_CHECKING:
    from incontext.evaluation.labelled_set import Pool
    from incontext.inference.example import Example

Sets = Annotated[
    list[Path] | None,
    typer.Argument(help="Folders (or .tar) of images/ + labels/, 8-bit ids, 255 unknown."),
]
Space = Annotated[
    str, typer.Option(help="What is learned: tokens, or pixels of example and target.")
]
Steps = Annotated[
    int, typer.Option(help="Optimizer steps for each painting that a query takes.", min=1)
]
Seed = Annotated[int, typer.Option(help="Which pictures are drawn, and all chance.", min=0)]
NOT_SHOWN = 3  # exit code: tuning is not shown to help
HURT = 4  # exit code: some examples hurt


def tune(
    out: Annotated[Path, typer.Option(help="Prompt file to write, .safetensors.")],
    sets: Sets = None,
    example: Pairs = None,
    examples_from: From = None,
    images: Images = None,
    format: Format = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of the run, where it goes on if killed; default: OUT.run."),
    ] = None,
    checkpoint: Checkpoint = DEFAULT,
    kind: Kind = "semantic",
    color: Colors = None,
    name: Names = None,
    ignore: Ignore = None,
    threshold: Threshold = None,
    unlabelled: Unlabelled = "background",
    negative: Negative = None,
    space: Space = "tokens",
    steps: Steps = 100,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 0.02,
    seed: Seed = 0,
    thumbnail: Annotated[bool, typer.Option(help="Keep a small picture in the file.")] = True,
    device: Device = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
) -> None:
    """Learn a prompt for a scene or dataset; the model stays as it is.

    Takes 2 to thousands of labelled pictures. Says on held-out ones whether that helps, and writes
    what does best: the tuned prompt, or the best untuned one. Exit code: 0 tuning helps, 3 it is
    not shown to help, 2 the input was wrong.
    """
    import torch

    from incontext.checkpoints.checkpoint import locate
    from incontext.inference.prompt import prompt_path
    from incontext.tuning.report import check_drawing, summary, write
    from incontext.tuning.tune import tune as learn
    from incontext.tuning.tuner import Settings

    path, folder = prompt_path(out), run or out.with_suffix(".run")
    check_drawing()
    settings = Settings(space=space, steps=steps, rate=rate, seed=seed)
    torch.set_num_threads(threads)
    shown = Shown.parse(
        example, color, name, ignore, threshold, unlabelled, negative, kind,
        source=Source.parse(examples_from, images, format),
    )  # fmt: skip
    predictor = open_predictor(locate(checkpoint), device, name=checkpoint)
    pool = read_pool(shown, sets, predictor.size)
    if (folder / "state.pt").is_file():
        typer.echo(f"going on with the run in {folder}", err=True)
    with Progress() as progress:
        outcome = learn(
            predictor, pool, folder, kind=kind, settings=settings, thumbnail=thumbnail,
            tell=progress.tell,
        )  # fmt: skip
    outcome.prompt.save(path)
    write(outcome, folder)
    for line in summary(outcome):
        typer.echo(line)
    typer.echo(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB), {folder / 'curve.png'}")
    if not outcome.verdict.helps:
        raise typer.Exit(NOT_SHOWN)


def doctor(
    sets: Sets = None,
    example: Pairs = None,
    examples_from: From = None,
    images: Images = None,
    format: Format = None,
    out: Annotated[Path, typer.Option(help="Page to write, .html.")] = Path("doctor.html"),
    checkpoint: Checkpoint = DEFAULT,
    kind: Kind = "semantic",
    color: Colors = None,
    name: Names = None,
    ignore: Ignore = None,
    threshold: Threshold = None,
    unlabelled: Unlabelled = "background",
    negative: Negative = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
) -> None:
    """Say what examples are worth: each is asked for by the others.

    Predicts mIoU on new pictures for 1, 2, 4 … examples, names examples that hurt, near-duplicates,
    ids that are confused or too small, and proposes a small subset. Exit code: 0 nothing wrong,
    4 some examples hurt, 2 the input was wrong.
    """
    import torch

    from incontext.checkpoints.checkpoint import locate
    from incontext.evaluation.doctor import examine
    from incontext.evaluation.doctor_report import report_lines, report_page

    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise InputError(f"--out {out}; accepted: a file to write, NAME.html")
    torch.set_num_threads(threads)
    shown = Shown.parse(
        example, color, name, ignore, threshold, unlabelled, negative, kind,
        source=Source.parse(examples_from, images, format),
    )  # fmt: skip
    predictor = open_predictor(locate(checkpoint), device, name=checkpoint)
    pool = read_pool(shown, sets, predictor.size)
    with Progress() as progress:
        diagnosis = examine(
            predictor, pool, kind=kind, seed=seed,
            tell=lambda done, total: progress.tell("asking examples for each other", done, total),
        )  # fmt: skip
    for line in report_lines(diagnosis):
        typer.echo(line)
    report_page(diagnosis, out)
    typer.echo(f"wrote {out}")
    if diagnosis.bad:
        raise typer.Exit(HURT)


def read_pool(shown: Shown, sets: list[Path] | None, size: int) -> "Pool":
    """All examples that a command was given, at the model's size.

    Raises:
        InputError: none, or one that cannot be read.
    """
    from incontext.data.pictures import describe
    from incontext.evaluation.labelled_set import Pool

    if not sets and not shown:
        raise InputError(
            "no pictures: give folders of images/ + labels/, --example IMAGE MASK, or "
            "--examples-from PATH"
        )
    beside = [name for name in ("colors", "ignore", "threshold") if shown.labels[name] is not None]
    if sets and beside:
        raise InputError(
            f"--{beside[0].removesuffix('s')} is for --example; labels of a folder are 8-bit ids, "
            "255 means unknown"
        )
    names: dict[int, str] = {}
    for path in sets or []:
        said = describe(path).get("classes", {})
        if isinstance(said, dict):
            names |= {int(i): str(n) for i, n in said.items() if str(i).isdecimal()}
    sources: list[str] = []
    try:
        pool = Pool.of(_each(shown, sets or [], sources), size, sources=sources)
    except InputError as error:
        if sets and "no example shows" in str(error):
            raise InputError(
                f"{error}; in a folder 255 means unknown, write the object as 1"
            ) from None
        raise
    strange = [i for i in shown.names if i not in pool.ids]
    if strange:
        raise InputError(f"--name: no picture shows id {strange[0]}")
    names = {**pool.names, **{i: n for i, n in names.items() if i in pool.ids}, **shown.names}
    return pool.named(names)


def _each(shown: Shown, sets: list[Path], sources: list[str]) -> Iterator["Example"]:
    """Examples of the pairs, then of the sets; what to call each goes to `sources`."""
    import numpy as np

    from incontext.data.pictures import IGNORE, read_pairs
    from incontext.inference.example import Example

    for one in shown.each():
        sources.append(one.source)
        yield one
    partly = {name: shown.labels[name] for name in ("unlabelled", "negative")}
    for path in sets:
        for name, image, ids in read_pairs(path):
            sources.append(f"{path.stem}/{name}" if len(sets) > 1 or shown else name)
            yield Example(image, ids.astype(np.int32), ignore=IGNORE, **partly)
