"""`python -m eval ade20k`: mIoU with some examples a class, or with a tuned prompt."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from eval.core.dense import (
    ClassMap,
    SemanticImage,
    SemanticSet,
    class_prompts,
    classify,
    count_pixels,
    group_by_class,
    labels_to_classes,
    semantic_metrics,
)
from eval.core.processes import Processes
from eval.core.report import Row, write_report
from eval.core.setting import Setting
from eval.core.shared_work import Task, run_tasks
from incontext import Predictor
from incontext.batch.inputs import file_hash
from incontext.errors import InputError

Segment = Callable[[Image.Image], ClassMap]


def run(
    data: SemanticSet, folder: Path, setting: Setting, counts: Sequence[int],
    prompt: Path | None = None, max_images: int | None = None, out: Path | None = None,
) -> None:  # fmt: skip
    """Evaluate with each number of examples a class, and a tuned prompt; print and write a table.

    Args:
        prompt: file of a tuned prompt; its ids are class + 1, as in the dataset's label files.

    Raises:
        InputError: data that cannot be read, another run in `out`.
    """
    processes = Processes.from_environment()
    predictor = setting.load_predictor(processes)
    example_images, query_images = data.read(folder)
    query_images = query_images[:max_images]
    run_settings = {
        "dataset": data.name, "data": str(folder.resolve()), **setting.run_settings(predictor)
    }  # fmt: skip
    if prompt:
        run_settings["prompt"] = file_hash(prompt)
    by_class = cache(lambda: _group(data, example_images, folder))
    makers: dict[str, Callable[[], Segment]] = {
        f"{count} a class, {setting.ensemble} ensemble": partial(
            lambda n: _with_examples(predictor, class_prompts(predictor, setting, by_class(), n)),
            count,
        )
        for count in counts
    }
    if prompt:
        makers["tuned prompt"] = partial(_with_tuned_prompt, predictor, prompt)
    tasks = [_task(key, query_images, make, data.classes) for key, make in makers.items()]
    results = run_tasks(tasks, data.name, run_settings, out, processes)
    rows = [_row(key, results[key], setting.domain(data.image_source)) for key in makers]
    if processes.first:
        write_report(data.title, run_settings, rows, data.published, out, data.name)


def _group(
    data: SemanticSet, images: Sequence[SemanticImage], folder: Path
) -> dict[int, list[SemanticImage]]:
    """Group images by class; this reads all their label maps, so call it only if needed."""
    by_class = group_by_class(images, data.classes)
    if not by_class:
        raise InputError(f"{folder}: no class on the {len(images)} pictures to show")
    return by_class


def _task(
    key: str, images: Sequence[SemanticImage], make_segment: Callable[[], Segment],
    class_count: int,
) -> Task:  # fmt: skip
    """Return a task of one row of `count_pixels` an image."""

    def make_worker() -> Callable[[int], Any]:
        segment = make_segment()
        return lambda n: count_pixels(
            segment(images[n].read_image()), images[n].read_classes(), class_count
        )

    return Task(key, [image.name for image in images], make_worker)


def _with_examples(predictor: Predictor, prompts: Any) -> Segment:
    return lambda image: classify(predictor, image, prompts)


def _with_tuned_prompt(predictor: Predictor, path: Path) -> Segment:
    prompt = predictor.load_prompt(path)
    return lambda image: labels_to_classes(predictor.predict(image, prompt).labels)


def _row(key: str, rows: Sequence[Any], domain: str) -> Row:
    figures, iou = semantic_metrics(rows)
    return Row(key, dict(figures), domain, f"{len(rows)} pictures", {"classes": iou})
