"""`python -m eval ade20k`: mIoU with some examples a class, or with a tuned prompt."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from eval.dense import Map, SemanticSet, classes_of, classify, figures, holders, prompts, tally
from eval.journal import Journal
from eval.processes import Processes
from eval.report import Row, write
from eval.setting import Setting
from incontext import Predictor
from incontext.errors import InputError
from incontext.targets import file_hash

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
    about = {"dataset": data.name, "pictures": len(asked), **setting.about(predictor)}
    if prompt:
        about["prompt"] = file_hash(prompt)
    with tempfile.TemporaryDirectory() as scratch:
        place = out or Path(scratch)
        journal = Journal(place, data.name, about, processes.rank)
        keys: dict[str, Callable[[], Answer]] = {}
        if counts:
            held = holders(shown, data.classes)
            if not held:
                raise InputError(f"{folder}: no class on the {len(shown)} pictures to show")
        for count in counts:
            keys[f"{count} a class"] = lambda n=count: _by_examples(  # type: ignore[misc]
                predictor, prompts(predictor, setting, held, n)
            )
        if prompt:
            keys["tuned prompt"] = lambda: _tuned(predictor, prompt)
        for key, make in keys.items():
            todo = [n for n in range(len(asked)) if (key, n) not in journal.rows]
            answer = make() if todo else None
            for number in tqdm(processes.share(todo), desc=key, disable=None):
                one = asked[number]
                assert answer
                journal.add(key, number, tally(answer(one.picture()), one.classes(), data.classes))
        processes.wait()
        journal = Journal(place, data.name, about, processes.rank)
        rows = [_row(key, journal.of(key), setting.domain(data.pictures)) for key in keys]
        if processes.first:
            write(data.title, about, rows, data.published, out, data.name)


def _by_examples(predictor: Predictor, by_class: Any) -> Answer:
    return lambda picture: classify(predictor, picture, by_class)


def _tuned(predictor: Predictor, path: Path) -> Answer:
    made = predictor.load_prompt(path)
    return lambda picture: classes_of(predictor.predict(picture, made).labels)


def _row(key: str, rows: Sequence[Any], domain: str) -> Row:
    means, iou = figures(rows)
    return Row(key, dict(means), domain, f"{len(rows)} pictures", {"classes": iou})
