"""`python -m eval ade20k`: mIoU with some examples a class, or with a tuned prompt."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from eval.core.dense import (
    Labelled,
    Map,
    SemanticSet,
    classes_of,
    classify,
    figures,
    holders,
    prompts,
    tally,
)
from eval.core.processes import Processes
from eval.core.report import Row, write
from eval.core.setting import Setting
from eval.core.shared_work import Part, complete
from incontext import Predictor
from incontext.batch.targets import file_hash
from incontext.errors import InputError

Answer = Callable[[Image.Image], Map]


def run(
    data: SemanticSet, folder: Path, setting: Setting, counts: Sequence[int],
    prompt: Path | None = None, most: int | None = None, out: Path | None = None,
) -> None:  # fmt: skip
    """Evaluate with each number of examples a class, and the tuned prompt; print and write a table.

    Args:
        prompt: file of a tuned prompt; its ids are class + 1, as in the dataset's label files.
        most: pictures, at most.

    Raises:
        InputError: data that cannot be read, another run in `out`.
    """
    processes = Processes.here()
    predictor = setting.open(processes)
    shown, asked = data.parts(folder)
    asked = asked[:most]
    about = {"dataset": data.name, "data": str(folder.resolve()), **setting.about(predictor)}
    if prompt:
        about["prompt"] = file_hash(prompt)
    held = cache(lambda: _held(data, shown, folder))
    makes: dict[str, Callable[[], Answer]] = {
        f"{count} a class, {setting.ensemble} ensemble": partial(
            lambda n: _by_examples(predictor, prompts(predictor, setting, held(), n)), count
        )
        for count in counts
    }
    if prompt:
        makes["tuned prompt"] = partial(_tuned, predictor, prompt)
    parts = [_part(key, asked, make, data.classes) for key, make in makes.items()]
    done = complete(parts, data.name, about, out, processes)
    rows = [_row(key, done[key], setting.domain(data.pictures)) for key in makes]
    if processes.first:
        write(data.title, about, rows, data.published, out, data.name)


def _held(data: SemanticSet, shown: Sequence[Labelled], folder: Path) -> dict[int, list[Labelled]]:
    """Reads all label maps to show, so not before it is needed."""
    found = holders(shown, data.classes)
    if not found:
        raise InputError(f"{folder}: no class on the {len(shown)} pictures to show")
    return found


def _part(key: str, asked: Sequence[Labelled], make: Callable[[], Answer], classes: int) -> Part:
    def work() -> Callable[[int], Any]:
        answer = make()
        return lambda n: tally(answer(asked[n].picture()), asked[n].classes(), classes)

    return Part(key, [one.name for one in asked], work)


def _by_examples(predictor: Predictor, by_class: Any) -> Answer:
    return lambda picture: classify(predictor, picture, by_class)


def _tuned(predictor: Predictor, path: Path) -> Answer:
    made = predictor.load_prompt(path)
    return lambda picture: classes_of(predictor.predict(picture, made).labels)


def _row(key: str, rows: Sequence[Any], domain: str) -> Row:
    means, iou = figures(rows)
    return Row(key, dict(means), domain, f"{len(rows)} pictures", {"classes": iou})
