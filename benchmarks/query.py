"""Cost of a query by number of examples, and the size of prompts.

`python -m benchmarks.query [--quick] [--checkpoint NAME]`. Images of 640×480 in memory, float32:
whole calls, scaling, painting and decoding included. A model of tokens is compared with one of the
same shape with joint attention, whose examples go along with every query; its weights are random,
so its paintings mean nothing, but its times do.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from benchmarks.common import (
    Work,
    add_checkpoint,
    add_quick,
    alternate,
    environment,
    heading,
    numbers,
    option_parser,
    quick_checkpoint,
    ratio,
    row,
)
from incontext import Example, Predictor, Prompt
from incontext.checkpoints.checkpoint import load
from incontext.checkpoints.location import display_name
from incontext.model import SegGPT


def draw_example(seed: int) -> Example:
    """Draw a noisy image with a rectangle as its mask."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (480, 640, 3), np.uint8)
    mask = np.zeros((480, 640), bool)
    mask[100:300, 200:400] = True
    return Example(pixels, mask)


def predictors(checkpoint: str) -> tuple[Predictor, Predictor | None]:
    """Load the checkpoint; if it is a model of tokens, add its shape with joint attention."""
    model = load(checkpoint)
    if not isinstance(model, SegGPT):
        return Predictor(model), None
    torch.manual_seed(0)
    joint = SegGPT(replace(model.config, example_attention="joint"))
    return Predictor(model), Predictor(joint)


def main() -> None:
    """Print the tables."""
    parser = option_parser(__doc__, rounds=9)
    add_checkpoint(parser)
    for name, default, text in (
        ("--examples", "1,2,4,8,16,32,64,128", "Numbers of examples"),
        ("--joint", "1,4,16,64,128", "Numbers of examples for joint attention"),
        ("--pools", "32,128,512", "Numbers of examples of which each query gets the nearest 16"),
    ):
        parser.add_argument(
            name, default=default, help=f"{text}, with commas. Default: %(default)s."
        )
    add_quick(parser, "Measure a tiny model, fewer examples and rounds")
    options = parser.parse_args()
    if options.quick:
        options.examples, options.joint, options.pools, options.rounds = "1,8", "1,8", "17", 1
    torch.set_num_threads(options.threads)
    with quick_checkpoint(options) as checkpoint:
        small, joint = predictors(checkpoint)
    print(f"{environment()}, {display_name(checkpoint)}, {small.size}×{small.size}\n")
    counts = numbers(options.examples)
    examples = [draw_example(seed) for seed in range(max(*counts, *numbers(options.pools)))]
    with torch.inference_mode():
        _growing(small, examples, counts, options.rounds)
        if joint:
            _modes(small, joint, examples, numbers(options.joint), options.rounds)
        _nearest(small, examples, numbers(options.pools), options.rounds)


def _query(predictor: Predictor, prompt: Prompt) -> Work:
    image = draw_example(10_000).image
    return lambda: predictor.predict(image, prompt)


def _growing(small: Predictor, examples: list[Example], counts: Sequence[int], rounds: int) -> None:
    prompts = {n: small.prompt(examples[:n]) for n in counts}
    full = {n: small.prompt(examples[:n], thin_to=None) for n in counts if 4 < n <= 32}
    works = {str(n): _query(small, p) for n, p in prompts.items()}
    works |= {f"{n}, all tokens": _query(small, p) for n, p in full.items()}
    times = alternate(works, rounds, 2)
    heading("examples", "a query", "÷ one example", "prompt, MB", "prompt in float16, MB")
    sizes = [*prompts.values(), *full.values()]
    for (name, timings), prompt in zip(times.items(), sizes, strict=True):
        megabytes = prompt.nbytes / 1e6
        row(name, timings, ratio(timings, times[str(counts[0])]), f"{megabytes:.1f}",
            f"{megabytes / 2:.1f}")  # fmt: skip


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
        timings = times[str(n)]
        row(n, timings, ratio(timings, times[str(pools[0])]), f"{prompt.nbytes / 1e6:.1f}")
    timings = times["16 of 16"]
    row("(16 without choosing)", timings, ratio(timings, times[str(pools[0])]), "")


if __name__ == "__main__":
    main()
