"""`python -m eval tuned`: tuned prompts for sets of labelled images, scored on other images.

Of each set some images go to `incontext.tune`, as a user would give them; the others are the test
set, which tuning never sees. The figure is mIoU over all ids of the set at the images' own size,
tuned against the untuned uses of the same images. The best untuned use is chosen by the test set
itself, so the gain of tuning is not flattered.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from eval.studies.bench import TRAINED_DOMAINS
from eval.studies.common import ImageSet, set_paths
from incontext import Example, Predictor
from incontext.data.pictures import IGNORE_INDEX
from incontext.evaluation.confusion import Counts, Interval, confusion_counts, interval, miou
from incontext.evaluation.labelled_set import LabelledSet
from incontext.inference.prompt import Prompt
from incontext.tuning.baselines import baseline_prompt
from incontext.tuning.settings import Settings
from incontext.tuning.tune import tune

MAX_TRAIN_IMAGES, MAX_TEST_IMAGES = 64, 40  # of a set
COMMAND = "python -m eval tuned --data ../shared/data/validation --out prompts"


def split_images(data: ImageSet) -> tuple[list[int], list[int]]:
    """Split images by seed 0: two thirds, at most 64, to learn from; at most 40 to test on."""
    order = np.random.default_rng(0).permutation(len(data.images)).tolist()
    count = min(MAX_TRAIN_IMAGES, round(len(order) * 2 / 3))
    return order[:count], order[count : count + MAX_TEST_IMAGES]


def examples_with_all_ids(data: ImageSet, numbers: Sequence[int]) -> Iterator[Example]:
    """Yield images with the set's own ids."""
    for number in numbers:
        ids = data.labels[number].astype(np.int32)
        yield Example(data.images[number], ids, ignore=IGNORE_INDEX)


def test_prompt(
    predictor: Predictor, prompt: Prompt, data: ImageSet, numbers: Sequence[int]
) -> Counts:
    """Return confusion counts on images at their own size."""
    ids = sorted(data.classes)
    table = np.zeros(256, np.int64)
    table[ids] = np.arange(1, len(ids) + 1)
    counts = []
    results = predictor.predict((data.images[i] for i in numbers), prompt)
    for number, result in zip(numbers, results, strict=True):
        truth = data.labels[number]
        counts.append(
            confusion_counts(table[truth], table[result.labels], len(ids), truth == IGNORE_INDEX)
        )
    return np.stack(counts)


def run(folder: Path, checkpoint: str, sets: Sequence[str], out: Path, state: Path,
        settings: Settings) -> None:  # fmt: skip
    """Tune on every set; write the prompts that improve on the examples, and figures of all."""
    predictor = Predictor.from_pretrained(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "figures.json"
    figures: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for source in set_paths(folder, sets):
        data = ImageSet.read(source)
        figures[data.name] = tune_set(predictor, data, out, state / data.name, settings)
        path.write_text(json.dumps(dict(sorted(figures.items())), indent=1) + "\n")
    print(table(figures))


def tune_set(
    predictor: Predictor, data: ImageSet, out: Path, state: Path, settings: Settings
) -> dict[str, Any]:
    """Tune on one set, write the prompt if it improves on the examples, and return the figures."""
    train_numbers, test_numbers = split_images(data)
    train_set = LabelledSet.from_examples(
        examples_with_all_ids(data, train_numbers), predictor.size
    )
    train_set = replace(train_set, names={i: data.classes[i] for i in train_set.ids})
    with tqdm(desc=data.name, disable=None) as bar:

        def on_progress(step: str, count: int, total: int) -> None:
            bar.set_description(f"{data.name}: {step} {count}/{total}")

        outcome = tune(
            predictor, train_set, state, settings=settings, thumbnail=False,
            on_progress=on_progress,
        )  # fmt: skip
    baselines = {
        name: test_prompt(
            predictor, baseline_prompt(predictor, outcome.dataset, name, examples), data,
            test_numbers,
        )
        for name, examples in outcome.baseline_examples.items()
    }  # fmt: skip
    tuned_counts = test_prompt(predictor, outcome.tuned_prompt, data, test_numbers)
    best = max(baselines, key=lambda name: float(miou(baselines[name])))
    gain = interval(tuned_counts, baselines[best])
    figures: dict[str, Any] = {
        "learned": len(train_numbers), "tested": len(test_numbers), "ids": len(train_set.ids),
        "verdict": outcome.comparison.improves,
        "held_out_gain": round_interval(outcome.comparison.gain),
        "untuned": {name: round(float(miou(c)), 1) for name, c in baselines.items()}, "best": best,
        "tuned": round(float(miou(tuned_counts)), 1),
        "gain": round_interval(gain),
    }  # fmt: skip
    (out / f"{data.name}.safetensors").unlink(missing_ok=True)
    if outcome.comparison.improves:
        provenance = {
            "test": {"best untuned": f"{best} {figures['untuned'][best]}",
                     "tuned": figures["tuned"], "gain": str(gain), "pictures": len(test_numbers)},
            "command": f"{COMMAND} --only {data.name}",
        }  # fmt: skip
        prompt = replace(
            outcome.tuned_prompt, provenance={**outcome.tuned_prompt.provenance, **provenance}
        )
        file = prompt.save(out / f"{data.name}.safetensors")
        figures["megabytes"] = round(file.stat().st_size / 1e6, 1)
    return figures


def round_interval(interval: Interval) -> dict[str, float]:
    """Return an interval as JSON keeps it."""
    return {name: round(value, 1) for name, value in vars(interval).items()}


def table(figures: dict[str, Any]) -> str:
    """Format a row a set, and the means over sets of novel and of trained domains."""
    lines = [
        "| set | ids | learned from | best untuned | mIoU | tuned | gain, 90 % interval | file |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in figures.items():
        gain = "{value:+.1f} [{low:+.1f}, {high:+.1f}]".format(**row["gain"])
        file = f"{row['megabytes']} MB" if "megabytes" in row else "not shipped"
        lines.append(
            f"| {name} | {row['ids']} | {row['learned']} | {row['best']} | "
            f"{row['untuned'][row['best']]} | {row['tuned']} | {gain} | {file} |"
        )
    for title, rows in (
        ("mean, novel", [r for n, r in figures.items() if n not in TRAINED_DOMAINS]),
        ("mean, seen", [r for n, r in figures.items() if n in TRAINED_DOMAINS]),
    ):
        if rows:
            best_mean, tuned_mean, gain_mean = (
                np.mean([v(r) for r in rows])
                for v in (
                    lambda r: r["untuned"][r["best"]], lambda r: r["tuned"],
                    lambda r: r["gain"]["value"],
                )
            )  # fmt: skip
            lines.append(f"| **{title}** | | | | {best_mean:.1f} | {tuned_mean:.1f} | "
                         f"{gain_mean:+.1f} | |")  # fmt: skip
    return "\n".join(lines)
