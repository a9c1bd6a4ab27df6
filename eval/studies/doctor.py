"""`python -m eval doctor`: does the doctor find planted bad masks, and does it predict mIoU?

Planted: ten good examples of one class and one whose mask is wrong (another image's, moved,
inverted, only a part, or with the surroundings). It is found if the doctor ranks it first and calls
it harmful. Predicted: from ten good examples the doctor predicts the mIoU on new images. The
prediction holds if the measured mIoU lies within its interval.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eval.studies.common import ImageSet, set_paths
from incontext import Example, Predictor
from incontext.evaluation.confusion import miou
from incontext.evaluation.doctor import Diagnosis, examine
from incontext.evaluation.episodes import evaluate
from incontext.evaluation.labelled_set import LabelledSet
from incontext.labels.encodings import IdMap, Labels

GOOD_EXAMPLES = 10
QUERIES = 30  # to measure mIoU on
MIN_SHARE = 0.002  # of an image's pixels that a class has to cover
FAULTS = ("another's mask", "moved", "inverted", "a part only", "too much")


def spoil(fault: str, ids: IdMap, foreign_ids: IdMap) -> IdMap:
    """Spoil a mask (H, W) of 0 and 1.

    Args:
        fault: one of `FAULTS`.
        foreign_ids: the mask of another image, of the same size.
    """
    height, width = ids.shape
    if fault == "another's mask":
        return foreign_ids
    if fault == "moved":
        return np.roll(ids, (height // 3, width // 3), (0, 1))
    if fault == "inverted":
        return np.where(ids < 0, ids, 1 - ids)
    rows, columns = np.nonzero(ids == 1)
    spoiled = ids.copy()
    if fault == "a part only":
        spoiled[(ids == 1) & (np.arange(height)[:, None] > np.quantile(rows, 0.25))] = 0
        return spoiled
    down, across = max(4, height // 6), max(4, width // 6)
    top, bottom = max(0, rows.min() - down), rows.max() + down
    left, right = max(0, columns.min() - across), columns.max() + across
    box = spoiled[top:bottom, left:right]
    box[box == 0] = 1
    return spoiled


def draw_images(data: ImageSet, index: int, count: int, seed: int) -> list[int]:
    """Draw up to `count` images that show a class."""
    order = np.random.default_rng(seed).permutation(data.images_by_class[index]).tolist()
    return [i for i in order if (data.labels[i] == index).mean() > MIN_SHARE][:count]


def draw_class(data: ImageSet, count: int, seed: int) -> int:
    """Return one of the classes with at least `count` images."""
    classes = [
        index for index in sorted(data.images_by_class)
        if len(draw_images(data, index, count, seed)) >= count
    ]  # fmt: skip
    return classes[seed % len(classes)]


def labelled_set(data: ImageSet, index: int, numbers: Sequence[int], size: int) -> LabelledSet:
    """Return images with one class against the rest."""
    return LabelledSet.from_examples(
        (data.example(i, index) for i in numbers), size, sources=[str(i) for i in numbers]
    )


def find_planted(predictor: Predictor, data: ImageSet, fault: str, seed: int) -> tuple[bool, bool]:
    """Return whether the planted mask was ranked first, and whether it was called harmful."""
    index = draw_class(data, GOOD_EXAMPLES + 2, seed)
    numbers = draw_images(data, index, GOOD_EXAMPLES + 2, seed)
    pool = labelled_set(data, index, numbers[: GOOD_EXAMPLES + 1], predictor.size)
    last = labelled_set(data, index, numbers[-1:], predictor.size)
    at = seed % len(pool)
    truth = pool.example(at).labels.ids
    spoiled = spoil(fault, truth, last.example(0).labels.ids)
    examples = [pool.example(i) for i in range(len(pool))]
    examples[at] = Example.from_labels(examples[at].image, Labels(spoiled))
    with_fault = LabelledSet.from_examples(examples, predictor.size, sources=pool.sources)
    diagnosis = examine(predictor, with_fault)
    first = diagnosis.effects[0].source == pool.sources[at]
    return first, any(e.source == pool.sources[at] for e in diagnosis.harmful)


def predict_miou(predictor: Predictor, data: ImageSet, seed: int) -> tuple[Diagnosis, float]:
    """Return the diagnosis of ten good examples, and their measured mIoU on other images."""
    index = draw_class(data, GOOD_EXAMPLES + 10, seed)
    numbers = draw_images(data, index, GOOD_EXAMPLES + QUERIES, seed)
    examples = labelled_set(data, index, numbers[:GOOD_EXAMPLES], predictor.size)
    queries = labelled_set(data, index, numbers[GOOD_EXAMPLES:], predictor.size)
    prompt = predictor.prompt([examples.example(i) for i in range(len(examples))])
    return examine(predictor, examples), float(miou(evaluate(predictor, prompt, queries)))


def run(
    folder: Path, checkpoint: str, sets: Sequence[str], planted_count: int, predicted_count: int
) -> tuple[int, int]:
    """Print every trial; return how many planted masks were found and predictions held."""
    predictor = Predictor.from_pretrained(checkpoint)
    usable = []
    for path in set_paths(folder, sets):
        data = ImageSet.read(path)
        counts = [len(draw_images(data, c, 99, 0)) for c in data.images_by_class]
        if max(counts, default=0) >= GOOD_EXAMPLES + 10:
            usable.append(data)
    found_count = hold_count = 0
    for number in tqdm(range(planted_count), desc="planted", disable=None):
        data, fault = usable[number % len(usable)], FAULTS[number % len(FAULTS)]
        first, harmful = find_planted(predictor, data, fault, number)
        found_count += first and harmful
        print(f"planted {number + 1}: {data.name}, {fault}: "
              f"{'named first' if first else 'not first'}, "
              f"{'called harmful' if harmful else 'not called harmful'}", flush=True)  # fmt: skip
    for number in tqdm(range(predicted_count), desc="predicted", disable=None):
        data = usable[number % len(usable)]
        diagnosis, measured_miou = predict_miou(predictor, data, number)
        interval = diagnosis.curve[GOOD_EXAMPLES]
        hold_count += measured_miou in interval
        print(f"predicted {number + 1}: {data.name}: {interval}, measured {measured_miou:.1f}, "
              f"{'inside' if measured_miou in interval else 'outside'}", flush=True)  # fmt: skip
    print(f"planted masks found: {found_count} of {planted_count}; measured within the interval: "
          f"{hold_count} of {predicted_count}")  # fmt: skip
    return found_count, hold_count
