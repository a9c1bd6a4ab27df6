"""What `incontext segment` does once all is read: segment what is not finished, print a summary."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from incontext.batch.segment import Tell
    from incontext.batch.targets import Shard, Target
    from incontext.inference.predictor import Predictor
    from incontext.inference.prompt import Prompt

Engine = Annotated[
    str, typer.Option(help="local: this process; processes: several; ray: Ray, also a cluster.")
]
Workers = Annotated[
    int | None, typer.Option(help="Processes; by default one for each GPU, or core.")
]
Part = Annotated[
    str | None,
    typer.Option(help="One of several jobs, 0/8 … 7/8; all may write to one --out.", metavar="I/N"),
]

SHOWN_IDS = 20  # lines of the summary


def segment_found(
    engine: str, workers: int | None, predictor: "Predictor", prompt: "Prompt",
    found: "list[Target]", out: Path, shard: "Shard", settings: dict[str, Any], overwrite: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Segment what is not finished, print a summary of all; exit with 1 where some failed."""
    from incontext.batch.engines import segment_with
    from incontext.batch.manifest import Manifest, alone

    with alone(out, shard):
        manifest = Manifest.open(out, settings, prompt, overwrite, shard)
        todo = [t for t in found if not manifest.finished(t)]
        if len(todo) < len(found):
            typer.echo(f"{len(found) - len(todo)} of {len(found)} pictures are finished already")
        failures = _run(
            lambda tell: segment_with(
                engine, workers, predictor, prompt, todo, manifest, tell=tell, **options
            ),
            len(todo),
        )
    results = manifest.results
    done = ((t.name, results[t.name]) for t in found if t.name in results)
    _summary(prompt, done, manifest.path)
    if failures:
        text = f"{failures} of {len(found)} pictures failed; see {manifest.path}"
        typer.echo(text, err=True)
        raise typer.Exit(1)


def _run(work: "Callable[[Tell], None]", total: int) -> int:
    """Do `work(tell)` behind a progress bar; the number of failures that were told."""
    from tqdm import tqdm

    failures = 0
    with tqdm(total=total, unit="picture", disable=None) as bar:

        def tell(target: "Target", problem: str) -> None:
            nonlocal failures
            bar.update()
            if problem:
                failures += 1
                bar.write(f"failed: {problem}", file=sys.stderr)

        try:
            work(tell)
        except KeyboardInterrupt:
            bar.write("interrupted; finished files are kept", file=sys.stderr)
            raise typer.Exit(130) from None
    return failures


def _summary(prompt: "Prompt", results: Iterable[tuple[str, dict[str, Any]]], path: Path) -> None:
    """One line for each id: in how many pictures it was found."""
    shown = prompt.ids[:SHOWN_IDS]
    found, count, notes = dict.fromkeys(shown, 0), 0, []
    for name, entry in results:
        count += 1
        for index in shown:
            found[index] += entry["ids"][str(index)]["pixels"] > 0
        notes += [f"note on {name}: {note}" for note in entry.get("notes", [])]
    for index in shown:
        color = "#{:02x}{:02x}{:02x}".format(*prompt.colors[index])
        where = f"in {found[index]} of {count} pictures"
        typer.echo(f"id {index} ({prompt.names[index]}, {color}): {where}")
    if len(prompt.ids) > SHOWN_IDS:
        typer.echo(f"… and {len(prompt.ids) - SHOWN_IDS} more ids, see {path.name}")
    for note in notes:
        typer.echo(note)
    typer.echo(f"results: {path}")
