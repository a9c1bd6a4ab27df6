"""`python -m eval coco-panoptic`: PQ, and AP of the instances, by the paper's procedure."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.core.dense import VOID, Map, classes_of, classify, holders, prompts
from eval.core.processes import Processes
from eval.core.protocol import rgb
from eval.core.report import Row, write
from eval.core.setting import Setting
from eval.core.shared_work import Part, complete
from eval.datasets.coco_panoptic import PUBLISHED, CocoPanoptic, Panoptic
from eval.runs.panoptic import (
    STUFF_AREA,
    Instance,
    instance_prompt,
    instances,
    means,
    merged,
    panoptic_quality,
    quality,
)
from incontext import Predictor
from incontext.batch.targets import file_hash
from incontext.labels.coco import encode_rle

KEY = "pictures"
# → places (H, W), their confidence, classes (H, W)
Answer = Callable[[Image.Image], tuple[Map, Any, Map]]


def run(
    folder: Path, setting: Setting, count: int, objects: int, prompt: Path | None = None,
    most: int | None = None, out: Path | None = None,
) -> None:  # fmt: skip
    """Evaluate; print and write a table.

    Args:
        count: examples of each class for the semantic painting.
        objects: examples for the painting of instances, those with the most objects.
        prompt: a tuned prompt for the semantic painting instead; ids are class + 1.
        most: pictures, at most.

    Raises:
        InputError: data that cannot be read, another run in `out`.
    """
    processes = Processes.here()
    predictor = setting.open(processes)
    data = CocoPanoptic.read(folder)
    asked = data.asked[:most]
    about = {
        "dataset": "coco-panoptic", "data": str(folder.resolve()), "examples a class": count,
        "examples of instances": objects, "prompt": file_hash(prompt) if prompt else "",
        **setting.about(predictor),
    }  # fmt: skip

    def make() -> Callable[[int], Any]:
        answer = by_prompts(predictor, setting, data, count, objects, prompt)
        return lambda number: row_of(data, asked[number], answer)

    part = Part(KEY, [one.image.stem for one in asked], make)
    done = complete([part], "coco-panoptic", about, out, processes)
    figures, detail = figures_of(data, done[KEY])
    said = "tuned prompt" if prompt else f"{count} a class, {setting.ensemble} ensemble"
    row = Row(
        f"{said}; {objects} for instances", figures, setting.domain("COCO"),
        f"{len(asked)} pictures", detail,
    )  # fmt: skip
    if processes.first:
        write("COCO panoptic", about, [row], PUBLISHED, out, "coco-panoptic")


def by_prompts(
    predictor: Predictor, setting: Setting, data: CocoPanoptic, count: int, objects: int,
    prompt: Path | None,
) -> Answer:  # fmt: skip
    """Both paintings of a picture."""
    crowded = sorted(data.shown, key=lambda one: -_things(data, one))[:objects]
    pairs = []
    for one in crowded:
        truth = one.truth(data.order)
        there = np.isin(truth[..., 0], data.things) & ~np.isin(truth[..., 1], list(one.crowds))
        pairs.append((rgb(one.image), np.where(there, truth[..., 1], 0)))
    places = instance_prompt(predictor, pairs)
    if prompt:
        made = predictor.load_prompt(prompt)

        def semantic(picture: Image.Image) -> Map:
            return classes_of(predictor.predict(picture, made).labels)
    else:
        held = holders(data.labelled(data.shown), len(data.names))
        by_class = prompts(predictor, setting, held, count)

        def semantic(picture: Image.Image) -> Map:
            return classify(predictor, picture, by_class)

    def answer(picture: Image.Image) -> tuple[Map, Any, Map]:
        found = predictor.predict(picture, places)
        return found.labels, found.confidence, semantic(picture)

    return answer


def _things(data: CocoPanoptic, one: Panoptic) -> int:
    return sum(data.order[c] in data.things and not crowd for c, crowd in one.about.values())


def row_of(
    data: CocoPanoptic, one: Panoptic, answer: Answer, area: int = STUFF_AREA
) -> dict[str, Any]:
    """What a picture adds: counts of panoptic quality, instances found and true as RLE."""
    truth = one.truth(data.order)
    places, confidence, classes = answer(rgb(one.image))
    found = instances(places, confidence, classes, data.things)
    segments = merged(found, classes, data.stuff, area)
    real = [
        _coded(Instance(truth[..., 1] == number, int(category), 1.0), number in one.crowds)
        for category, number in np.unique(truth.reshape(-1, 2), axis=0).tolist()
        if category in data.things
    ]
    return {
        "size": list(classes.shape), "quality": quality(segments, truth, one.crowds),
        "found": [_coded(i) for i in found], "true": real,
    }  # fmt: skip


def _coded(one: Instance, crowd: bool = False) -> dict[str, Any]:
    return {"category": one.category, "score": one.score, "mask": encode_rle(one.mask),
            "crowd": int(crowd)}  # fmt: skip


def figures_of(data: CocoPanoptic, rows: Sequence[Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """PQ of all, of things and of stuff, AP of instances; and PQ, SQ and RQ of each class."""
    by_class = panoptic_quality([row["quality"] for row in rows])
    every = [*data.things, *data.stuff]
    figures = {
        "PQ": means(by_class, every), "PQ things": means(by_class, data.things),
        "PQ stuff": means(by_class, data.stuff), "AP": average_precision(rows),
    }  # fmt: skip
    return figures, {"classes": {data.names[c]: by_class[c] for c in by_class if c != VOID}}


def average_precision(rows: Sequence[Any]) -> float:
    """Mask AP of COCO over 0.50:0.95 in percent, by faster-coco-eval; NaN without an instance."""
    from faster_coco_eval import COCO, COCOeval_faster, mask

    images: list[Any] = []
    true: list[Any] = []
    found: list[Any] = []
    for number, row in enumerate(rows, 1):
        height, width = row["size"]
        images.append({"id": number, "height": height, "width": width})
        for one in row["true"]:
            area = float(mask.area(one["mask"]))
            box = [float(x) for x in mask.toBbox(one["mask"])]
            true.append({"id": len(true) + 1, "image_id": number, "category_id": one["category"],
                         "segmentation": one["mask"], "area": area, "bbox": box,
                         "iscrowd": one["crowd"]})  # fmt: skip
        found += [
            {"image_id": number, "category_id": one["category"], "score": one["score"],
             "segmentation": one["mask"]} for one in row["found"]
        ]  # fmt: skip
    if all(one["iscrowd"] for one in true):
        return float("nan")
    if not found:
        return 0.0
    categories = [{"id": c, "name": str(c)} for c in sorted({a["category_id"] for a in true})]
    data = COCO({"images": images, "annotations": true, "categories": categories})
    judge = COCOeval_faster(data, data.loadRes(found), "segm", print_function=lambda *_: None)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return 100 * float(judge.stats[0])
