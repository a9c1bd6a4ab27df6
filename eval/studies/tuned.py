"""`python -m eval tuned`: tuned prompts for sets of labelled pictures, judged on pictures apart.

Of each set some pictures go to `incontext.tune`, as a user would give them; the others are the
test, which tuning never sees: mIoU over all ids of the set at the pictures' own size, tuned against
each use of the same pictures untuned. Untuned is what does best on the test itself, so gains are
not flattered.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from eval.studies.bench import SEEN
from eval.studies.common import ImageSet, still_sets
from incontext import Example, Predictor
from incontext.data.pictures import IGNORE_INDEX
from incontext.evaluation.confusion import Counts, Interval, confusion_counts, interval, miou
from incontext.evaluation.labelled_set import LabelledSet
from incontext.inference.prompt import Prompt
from incontext.tuning.baselines import baseline_prompt
from incontext.tuning.tune import tune
from incontext.tuning.tuner import Settings

MOST_LEARNED, MOST_TESTED = 64, 40  # pictures of a set
COMMAND = "python -m eval tuned --data ../shared/data/validation --out prompts"


def divide(data: ImageSet) -> tuple[list[int], list[int]]:
    """Pictures to learn from (two thirds, at most 64) and to test on (at most 40), by seed 0."""
    order = np.random.default_rng(0).permutation(len(data.images)).tolist()
    learned = min(MOST_LEARNED, round(len(order) * 2 / 3))
    return order[:learned], order[learned : learned + MOST_TESTED]


def examples_of(data: ImageSet, chosen: Sequence[int]) -> Iterator[Example]:
    """Pictures with the set's own ids."""
    for index in chosen:
        ids = data.labels[index].astype(np.int32)
        yield Example(data.images[index], ids, ignore=IGNORE_INDEX)


def test(predictor: Predictor, prompt: Prompt, data: ImageSet, chosen: Sequence[int]) -> Counts:
    """Confusion counts on pictures at their own size."""
    ids = sorted(data.classes)
    table = np.zeros(256, np.int64)
    table[ids] = np.arange(1, len(ids) + 1)
    counts = []
    results = predictor.predict((data.images[i] for i in chosen), prompt)
    for index, result in zip(chosen, results, strict=True):
        truth = data.labels[index]
        counts.append(
            confusion_counts(table[truth], table[result.labels], len(ids), truth == IGNORE_INDEX)
        )
    return np.stack(counts)


def run(folder: Path, checkpoint: str, sets: Sequence[str], out: Path, state: Path,
        settings: Settings) -> None:  # fmt: skip
    """Tune on every set; write the prompts that the verdict recommends, and figures of all."""
    predictor = Predictor.from_pretrained(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "figures.json"
    figures: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for source in still_sets(folder, sets):
        data = ImageSet.read(source)
        figures[data.name] = one(predictor, data, out, state / data.name, settings)
        path.write_text(json.dumps(dict(sorted(figures.items())), indent=1) + "\n")
    print(table(figures))


def one(
    predictor: Predictor, data: ImageSet, out: Path, state: Path, settings: Settings
) -> dict[str, Any]:
    """Tune on one set; its figures."""
    learned, tested = divide(data)
    pool = LabelledSet.from_examples(examples_of(data, learned), predictor.size)
    pool = replace(pool, names={i: data.classes[i] for i in pool.ids})
    with tqdm(desc=data.name, disable=None) as bar:

        def tell(what: str, done: int, total: int) -> None:
            bar.set_description(f"{data.name}: {what} {done}/{total}")

        outcome = tune(predictor, pool, state, settings=settings, thumbnail=False, on_progress=tell)
    plain = {
        name: test(
            predictor, baseline_prompt(predictor, outcome.dataset, name, chosen), data, tested
        )
        for name, chosen in outcome.baseline_examples.items()
    }
    tuned = test(predictor, outcome.tuned_prompt, data, tested)
    best = max(plain, key=lambda name: float(miou(plain[name])))
    gain = interval(tuned, plain[best])
    found: dict[str, Any] = {
        "learned": len(learned), "tested": len(tested), "ids": len(pool.ids),
        "verdict": outcome.comparison.improves, "held_out_gain": rounded(outcome.comparison.gain),
        "untuned": {name: round(float(miou(c)), 1) for name, c in plain.items()}, "best": best,
        "tuned": round(float(miou(tuned)), 1),
        "gain": rounded(gain),
    }  # fmt: skip
    (out / f"{data.name}.safetensors").unlink(missing_ok=True)
    if outcome.comparison.improves:
        said = {"test": {"best untuned": f"{best} {found['untuned'][best]}",
                         "tuned": found["tuned"], "gain": str(gain), "pictures": len(tested)},
                "command": f"{COMMAND} --only {data.name}"}  # fmt: skip
        prompt = replace(outcome.tuned_prompt, made={**outcome.tuned_prompt.made, **said})
        file = prompt.save(out / f"{data.name}.safetensors")
        found["megabytes"] = round(file.stat().st_size / 1e6, 1)
    return found


def rounded(interval: Interval) -> dict[str, float]:
    """An interval as JSON keeps it."""
    return {name: round(value, 1) for name, value in vars(interval).items()}


def table(figures: dict[str, Any]) -> str:
    """A row a set, and the means over novel and seen sets."""
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
        ("mean, novel", [r for n, r in figures.items() if n not in SEEN]),
        ("mean, seen", [r for n, r in figures.items() if n in SEEN]),
    ):
        if rows:
            best, tuned, gain = (
                np.mean([v(r) for r in rows])
                for v in (
                    lambda r: r["untuned"][r["best"]], lambda r: r["tuned"],
                    lambda r: r["gain"]["value"],
                )
            )  # fmt: skip
            lines.append(f"| **{title}** | | | | {best:.1f} | {tuned:.1f} | {gain:+.1f} | |")
    return "\n".join(lines)
