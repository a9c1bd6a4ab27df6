"""What a query costs against the number of examples, and how large prompts are.

`python -m benchmarks.query [--quick] [--checkpoint NAME]`. Pictures of 640×480 in memory, float32:
whole calls, scaling, painting and reading included. Beside a model of tokens the same shape with
joint attention and random weights (paintings mean nothing, time does), whose examples go along with
every query.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from benchmarks.common import CHECKPOINT, Work, alternate, environment, heading, numbers, ratio, row
from incontext import Example, Predictor, Prompt
from incontext.checkpoints.checkpoint import load
from incontext.model import SegGPT


def picture(seed: int) -> Example:
    """A noisy picture with a rectangle on it."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (480, 640, 3), np.uint8)
    mask = np.zeros((480, 640), bool)
    mask[100:300, 200:400] = True
    return Example(pixels, mask)


def predictors(checkpoint: str) -> tuple[Predictor, Predictor | None]:
    """The checkpoint, and its shape with joint attention where it has tokens."""
    model = load(checkpoint)
    if not isinstance(model, SegGPT):
        return Predictor(model), None
    torch.manual_seed(0)
    joint = SegGPT(replace(model.config, example_attention="joint"))
    return Predictor(model), Predictor(joint)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default=CHECKPOINT)
    parser.add_argument("--examples", default="1,2,4,8,16,32,64,128")
    parser.add_argument("--joint", default="1,4,16,64,128", help="numbers of examples, joint")
    parser.add_argument("--pools", default="32,128,512", help="examples to choose 16 from")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="fewer examples and rounds")
    options = parser.parse_args()
    if options.quick:
        options.examples, options.joint, options.pools, options.rounds = "1,4,16", "1,16", "32", 3
    torch.set_num_threads(options.threads)
    small, joint = predictors(options.checkpoint)
    print(f"{environment()}, {options.checkpoint}, {small.size}×{small.size}\n")
    counts = numbers(options.examples)
    examples = [picture(seed) for seed in range(max(*counts, *numbers(options.pools)))]
    with torch.inference_mode():
        _growing(small, examples, counts, options.rounds)
        if joint:
            _modes(small, joint, examples, numbers(options.joint), options.rounds)
        _nearest(small, examples, numbers(options.pools), options.rounds)


def _query(predictor: Predictor, prompt: Prompt) -> Work:
    asked = picture(10_000).image
    return lambda: predictor.predict(asked, prompt)


def _growing(small: Predictor, examples: list[Example], counts: Sequence[int], rounds: int) -> None:
    prompts = {n: small.prompt(examples[:n]) for n in counts}
    full = {n: small.prompt(examples[:n], thin_to=None) for n in counts if 4 < n <= 32}
    works = {str(n): _query(small, p) for n, p in prompts.items()}
    works |= {f"{n}, all tokens": _query(small, p) for n, p in full.items()}
    times = alternate(works, rounds, 2)
    heading("examples", "a query", "÷ one example", "prompt, MB", "prompt in float16, MB")
    sizes = [*prompts.values(), *full.values()]
    for (name, taken), prompt in zip(times.items(), sizes, strict=True):
        mega = prompt.nbytes / 1e6
        row(name, taken, ratio(taken, times[str(counts[0])]), f"{mega:.1f}", f"{mega / 2:.1f}")


def _modes(
    small: Predictor, joint: Predictor, examples: list[Example], counts: Sequence[int], rounds: int
) -> None:
    print()
    heading("examples", "joint", "independent, all tokens", "independent",
            "joint ÷ independent, all tokens", "joint ÷ independent")  # fmt: skip
    for count in counts:
        works = {
            "joint": _query(joint, joint.prompt(examples[:count])),
            "all": _query(small, small.prompt(examples[:count], thin_to=None)),
            "thin": _query(small, small.prompt(examples[:count])),
        }
        times = alternate(works, max(2, rounds // (1 + count // 16)))
        ratios = (ratio(times["joint"], times[name]) for name in ("all", "thin"))
        row(count, *times.values(), *ratios)


def _nearest(small: Predictor, examples: list[Example], pools: Sequence[int], rounds: int) -> None:
    prompts = {n: small.prompt(examples[:n], nearest=16, half=True) for n in pools}
    works = {str(n): _query(small, p) for n, p in prompts.items()}
    times = alternate({"16 of 16": _query(small, small.prompt(examples[:16])), **works}, rounds, 2)
    print()
    heading("the nearest 16 of", "a query", "÷ the smallest pool", "prompt in float16, MB")
    for n, prompt in prompts.items():
        taken = times[str(n)]
        row(n, taken, ratio(taken, times[str(pools[0])]), f"{prompt.nbytes / 1e6:.1f}")
    alone = times["16 of 16"]
    row("(16 without choosing)", alone, ratio(alone, times[str(pools[0])]), "")


if __name__ == "__main__":
    main()
