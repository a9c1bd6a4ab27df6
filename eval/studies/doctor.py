"""`python -m eval doctor`: does the doctor find a planted bad mask, and is its word good?

Planted: ten good examples of one class and one whose mask is wrong (another picture's, moved,
inverted, only a part, or with the surroundings); found is when the doctor names it first and says
that it hurts. Word: from ten good examples mIoU on new pictures is predicted; is what is measured
on others within the interval?
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eval.studies.common import ImageSet, binary_ids, still_sets
from incontext import Example, Predictor
from incontext.evaluation.confusion import miou
from incontext.evaluation.doctor import Diagnosis, examine
from incontext.evaluation.episodes import evaluate
from incontext.evaluation.labelled_set import LabelledSet
from incontext.labels.encodings import IdMap, Labels

GOOD = 10  # examples
QUERIES = 30  # to measure on
FAULTS = ("another's mask", "moved", "inverted", "a part only", "too much")


def fault(kind: str, ids: IdMap, other: IdMap) -> IdMap:
    """A mask (H, W) of 0 and 1, spoiled; `other`: that of another picture, of the same size."""
    height, width = ids.shape
    if kind == "another's mask":
        return other
    if kind == "moved":
        return np.roll(ids, (height // 3, width // 3), (0, 1))
    if kind == "inverted":
        return np.where(ids < 0, ids, 1 - ids)
    rows, columns = np.nonzero(ids == 1)
    spoiled = ids.copy()
    if kind == "a part only":
        spoiled[(ids == 1) & (np.arange(height)[:, None] > np.quantile(rows, 0.25))] = 0
        return spoiled
    down, across = max(4, height // 6), max(4, width // 6)
    top, bottom = max(0, rows.min() - down), rows.max() + down
    left, right = max(0, columns.min() - across), columns.max() + across
    box = spoiled[top:bottom, left:right]
    box[box == 0] = 1
    return spoiled


def draw(data: ImageSet, index: int, count: int, seed: int) -> list[int]:
    """Pictures that hold a class; fewer than asked where there are not so many."""
    held = np.random.default_rng(seed).permutation(data.holders[index]).tolist()
    shows = [i for i in held if (data.labels[i] == index).mean() > 0.002]
    return shows[:count]


def class_of(data: ImageSet, count: int, seed: int) -> int:
    """One of the classes that so many pictures show."""
    classes = [c for c in sorted(data.holders) if len(draw(data, c, count, seed)) >= count]
    return classes[seed % len(classes)]


def pool_of(data: ImageSet, index: int, chosen: Sequence[int], size: int) -> LabelledSet:
    """One class against the rest."""
    return LabelledSet.from_examples(
        (Example(data.images[i], binary_ids(data.labels[i], index), ignore=-1) for i in chosen),
        size, sources=[str(i) for i in chosen],
    )  # fmt: skip


def planted(predictor: Predictor, data: ImageSet, kind: str, seed: int) -> tuple[bool, bool]:
    """Whether the planted mask was named first, and whether it was called harmful."""
    index = class_of(data, GOOD + 2, seed)
    chosen = draw(data, index, GOOD + 2, seed)
    pool = pool_of(data, index, chosen[: GOOD + 1], predictor.size)
    last = pool_of(data, index, chosen[-1:], predictor.size)
    at = seed % len(pool)
    truth = pool.example(at).labels.ids
    spoiled = fault(kind, truth, last.example(0).labels.ids)
    examples = [pool.example(i) for i in range(len(pool))]
    examples[at] = Example.of(examples[at].image, Labels(spoiled))
    bad = LabelledSet.from_examples(examples, predictor.size, sources=pool.sources)
    diagnosis = examine(predictor, bad)
    first = diagnosis.effects[0].source == pool.sources[at]
    return first, any(e.source == pool.sources[at] for e in diagnosis.harmful)


def word(predictor: Predictor, data: ImageSet, seed: int) -> tuple[Diagnosis, float]:
    """A diagnosis of ten good examples, and what they reach on other pictures."""
    index = class_of(data, GOOD + 10, seed)
    chosen = draw(data, index, GOOD + QUERIES, seed)
    pool = pool_of(data, index, chosen[:GOOD], predictor.size)
    rest = pool_of(data, index, chosen[GOOD:], predictor.size)
    prompt = predictor.prompt([pool.example(i) for i in range(len(pool))])
    return examine(predictor, pool), float(miou(evaluate(predictor, prompt, rest)))


def run(
    folder: Path, checkpoint: str, sets: Sequence[str], trials: int, words: int
) -> tuple[int, int]:
    """Print every trial; how many planted masks were found, how often the word was good."""
    predictor = Predictor.from_pretrained(checkpoint)
    usable = []
    for path in still_sets(folder, sets):
        data = ImageSet.read(path)
        if any(len(draw(data, c, 99, 0)) >= GOOD + 10 for c in data.holders):
            usable.append(data)
    found = good = 0
    for number in tqdm(range(trials), desc="planted", disable=None):
        data, kind = usable[number % len(usable)], FAULTS[number % len(FAULTS)]
        first, harmful = planted(predictor, data, kind, number)
        found += first and harmful
        print(f"planted {number + 1}: {data.name}, {kind}: "
              f"{'named first' if first else 'not first'}, "
              f"{'called harmful' if harmful else 'not called harmful'}", flush=True)  # fmt: skip
    for number in tqdm(range(words), desc="predicted", disable=None):
        data = usable[number % len(usable)]
        diagnosis, measured = word(predictor, data, number)
        predicted = diagnosis.curve[GOOD]
        good += measured in predicted
        print(f"predicted {number + 1}: {data.name}: {predicted}, measured {measured:.1f}, "
              f"{'inside' if measured in predicted else 'outside'}", flush=True)  # fmt: skip
    print(f"planted masks found: {found} of {trials}; measured within the interval: "
          f"{good} of {words}")  # fmt: skip
    return found, good
