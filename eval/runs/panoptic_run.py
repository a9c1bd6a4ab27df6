"""`python -m eval coco-panoptic`: PQ, and AP of the instances, by the paper's procedure."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.core.dense import ClassMap, class_prompts, classify, group_by_class, labels_to_classes
from eval.core.processes import Processes
from eval.core.protocol import read_rgb
from eval.core.report import Row, write_report
from eval.core.setting import Setting
from eval.core.shared_work import Task, run_tasks
from eval.datasets.coco_panoptic import PUBLISHED, CocoPanoptic, PanopticImage
from eval.runs.panoptic import (
    STUFF_AREA,
    Instance,
    count_segments,
    find_instances,
    instance_prompt,
    mean_pq,
    merge_segments,
    panoptic_quality,
)
from incontext import Predictor
from incontext.batch.inputs import file_hash
from incontext.data.pictures import IGNORE_INDEX
from incontext.labels.coco import encode_rle

KEY = "pictures"
# image → places (H, W), their confidence, classes (H, W)
Segment = Callable[[Image.Image], tuple[ClassMap, Any, ClassMap]]


def run(
    folder: Path, setting: Setting, count: int, instance_count: int, prompt: Path | None = None,
    max_images: int | None = None, out: Path | None = None,
) -> None:  # fmt: skip
    """Evaluate; print and write a table.

    Args:
        count: examples of each class for the semantic painting.
        instance_count: examples for the painting of instances, those with the most objects.
        prompt: a tuned prompt for the semantic painting instead; ids are class + 1.

    Raises:
        InputError: data that cannot be read, another run in `out`.
    """
    processes = Processes.from_environment()
    predictor = setting.load_predictor(processes)
    data = CocoPanoptic.read(folder)
    images = data.val_images[:max_images]
    run_settings = {
        "dataset": "coco-panoptic", "data": str(folder.resolve()), "examples a class": count,
        "examples of instances": instance_count, "prompt": file_hash(prompt) if prompt else "",
        **setting.run_settings(predictor),
    }  # fmt: skip

    def make_worker() -> Callable[[int], Any]:
        segment = make_segment(predictor, setting, data, count, instance_count, prompt)
        return lambda number: image_row(data, images[number], segment)

    task = Task(KEY, [image.image_path.stem for image in images], make_worker)
    rows = run_tasks([task], "coco-panoptic", run_settings, out, processes)[KEY]
    figures, detail = panoptic_metrics(data, rows)
    title = "tuned prompt" if prompt else f"{count} a class, {setting.ensemble} ensemble"
    row = Row(
        f"{title}; {instance_count} for instances", figures, setting.domain("COCO"),
        f"{len(images)} pictures", detail,
    )  # fmt: skip
    if processes.first:
        write_report("COCO panoptic", run_settings, [row], PUBLISHED, out, "coco-panoptic")


def make_segment(
    predictor: Predictor, setting: Setting, data: CocoPanoptic, count: int, instance_count: int,
    prompt: Path | None,
) -> Segment:  # fmt: skip
    """Encode the prompts of both paintings; return a function that paints an image twice."""
    crowded = sorted(data.train_images, key=lambda image: -_thing_count(data, image))
    pairs = []
    for image in crowded[:instance_count]:
        truth = image.read_truth(data.class_order)
        is_thing = np.isin(truth[..., 0], data.things)
        in_crowd = np.isin(truth[..., 1], list(image.crowds))
        ids = np.where(is_thing & ~in_crowd, truth[..., 1], 0)
        pairs.append((read_rgb(image.image_path), ids))
    places = instance_prompt(predictor, pairs)
    if prompt:
        tuned_prompt = predictor.load_prompt(prompt)

        def semantic(image: Image.Image) -> ClassMap:
            return labels_to_classes(predictor.predict(image, tuned_prompt).labels)
    else:
        by_class = group_by_class(data.semantic_images(data.train_images), len(data.names))
        prompts = class_prompts(predictor, setting, by_class, count)

        def semantic(image: Image.Image) -> ClassMap:
            return classify(predictor, image, prompts)

    def segment(image: Image.Image) -> tuple[ClassMap, Any, ClassMap]:
        result = predictor.predict(image, places)
        return result.labels, result.confidence, semantic(image)

    return segment


def _thing_count(data: CocoPanoptic, image: PanopticImage) -> int:
    return sum(
        data.class_order[category] in data.things and not crowd
        for category, crowd in image.segment_info.values()
    )


def image_row(
    data: CocoPanoptic, image: PanopticImage, segment: Segment, area: int = STUFF_AREA
) -> dict[str, Any]:
    """Return what an image adds: counts of panoptic quality, instances found and true as RLE."""
    truth = image.read_truth(data.class_order)
    places, confidence, classes = segment(read_rgb(image.image_path))
    instances = find_instances(places, confidence, classes, data.things)
    segments = merge_segments(instances, classes, data.stuff, area)
    true_instances = [
        _to_rle(Instance(truth[..., 1] == number, int(category), 1.0), number in image.crowds)
        for category, number in np.unique(truth.reshape(-1, 2), axis=0).tolist()
        if category in data.things
    ]
    return {
        "size": list(classes.shape), "quality": count_segments(segments, truth, image.crowds),
        "found": [_to_rle(instance) for instance in instances], "true": true_instances,
    }  # fmt: skip


def _to_rle(instance: Instance, crowd: bool = False) -> dict[str, Any]:
    return {"category": instance.category, "score": instance.score,
            "mask": encode_rle(instance.mask), "crowd": int(crowd)}  # fmt: skip


def panoptic_metrics(
    data: CocoPanoptic, rows: Sequence[Any]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return PQ of all, of things and of stuff and AP; and PQ, SQ and RQ of each class."""
    by_class = panoptic_quality([row["quality"] for row in rows])
    figures = {
        "PQ": mean_pq(by_class, [*data.things, *data.stuff]),
        "PQ things": mean_pq(by_class, data.things),
        "PQ stuff": mean_pq(by_class, data.stuff), "AP": average_precision(rows),
    }  # fmt: skip
    classes = {data.names[c]: by_class[c] for c in by_class if c != IGNORE_INDEX}
    return figures, {"classes": classes}


def average_precision(rows: Sequence[Any]) -> float:
    """Return COCO's mask AP over 0.50:0.95 in percent, by faster-coco-eval.

    NaN without a true instance, 0 without a predicted one.

    Args:
        rows: of `image_row`.
    """
    from faster_coco_eval import COCO, COCOeval_faster, mask

    images: list[Any] = []
    annotations: list[Any] = []
    detections: list[Any] = []
    for number, row in enumerate(rows, 1):
        height, width = row["size"]
        images.append({"id": number, "height": height, "width": width})
        for instance in row["true"]:
            rle = instance["mask"]
            annotations.append({
                "id": len(annotations) + 1, "image_id": number,
                "category_id": instance["category"], "segmentation": rle,
                "area": float(mask.area(rle)), "bbox": [float(x) for x in mask.toBbox(rle)],
                "iscrowd": instance["crowd"],
            })  # fmt: skip
        detections += [
            {"image_id": number, "category_id": instance["category"], "score": instance["score"],
             "segmentation": instance["mask"]} for instance in row["found"]
        ]  # fmt: skip
    if all(annotation["iscrowd"] for annotation in annotations):
        return float("nan")
    if not detections:
        return 0.0
    ids = sorted({annotation["category_id"] for annotation in annotations})
    categories = [{"id": c, "name": str(c)} for c in ids]
    truth = COCO({"images": images, "annotations": annotations, "categories": categories})
    evaluation = COCOeval_faster(
        truth, truth.loadRes(detections), "segm", print_function=lambda *_: None
    )
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return 100 * float(evaluation.stats[0])
