"""Ours beside transformers' port of SegGPT: same weights, same run, alternating.

`python -m benchmarks.port [--examples 1,4,8] [--rounds 3] [--quick]`. Random weights in the
official ViT-L shape, one query of 448×448. "fresh" encodes the prompt for each query, as the port
has to; "reused" has it encoded before. The floor is the arithmetic that remains, at the rate that
matrix products of the model's own shapes reach in the same run.
"""

import argparse
import tempfile
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import Timings, alternate, environment, heading, numbers, ratio, row
from incontext import Predictor
from incontext.checkpoints.checkpoint import load
from incontext.model import Config, SegGPT

TINY: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4, "image_size": (256, 128),
    "pretrain_image_size": 64, "mlp_dim": 256, "decoder_hidden_size": 16,
    "intermediate_hidden_state_indices": [2, 4, 6, 7],
}  # fmt: skip


def pair(tiny: bool, device: str, dtype: torch.dtype) -> tuple[Any, SegGPT]:
    """Their model and ours with the same random weights."""
    import transformers

    torch.manual_seed(0)
    config = transformers.SegGptConfig(**(TINY if tiny else {}))
    theirs = transformers.SegGptForImageSegmentation(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load(folder)
    assert isinstance(ours, SegGPT)
    return theirs.to(device, dtype), ours.to(device, dtype)


@dataclass(frozen=True)
class Flops:
    """Floating-point operations that mathematics leaves for one query with N examples."""

    fresh: float
    reused: float

    @classmethod
    def of(cls, config: Config, examples: int) -> "Flops":
        """Linear layers, attention and decoder; a multiply-add counts as two.

        The target stream of the first blocks belongs to the prompt. Attention: each example looks
        at its canvas, the query at itself once and at each example. In the last block examples
        give keys and values only.
        """
        tokens = (config.image_size // config.patch_size) ** 2
        dim, hidden = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
        token = 2 * (4 * dim * dim + 2 * dim * hidden)
        quarter = 4 * tokens * tokens * dim
        block = (examples + 1) * tokens * token + (3 * examples + 1) * quarter
        last = tokens * (token + examples * 4 * dim * dim) + (examples + 1) * quarter
        decoded = tokens + config.image_size // config.patch_size
        pixels = config.decoder_dim * config.patch_size**2
        decoder = 2 * decoded * pixels * (len(config.taps) * dim + 9 * config.decoder_dim)
        embed = 2 * tokens * 3 * config.patch_size**2 * dim
        reused = (config.depth - 1) * block + last + decoder + embed
        return cls(reused + (config.merge_after + 1) * block + 2 * examples * embed, reused)


class Products:
    """Matrix products of a block's shapes: what the machine reaches where nothing else is done."""

    def __init__(self, config: Config, x: Tensor) -> None:
        tokens = 2 * (config.image_size // config.patch_size) ** 2
        dim, hidden = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
        shapes = [(dim, 3 * dim), (dim, dim), (dim, hidden), (hidden, dim)]
        self.pairs = [(x.new_ones(tokens, i), x.new_ones(o, i)) for i, o in shapes]
        self.flops = 2 * tokens * sum(i * o for i, o in shapes)

    def __call__(self) -> None:
        """All of them once."""
        for a, b in self.pairs:
            F.linear(a, b)

    def rate(self, timings: Timings) -> float:
        """FLOP a second."""
        return self.flops / timings.median


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", default="1,4,8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--without-int8", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a tiny model")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype, device = getattr(torch, options.dtype), options.device
    theirs, ours = pair(options.quick, device, dtype)
    print(f"{environment(device)}, {options.dtype}, {'tiny' if options.quick else 'ViT-L'}\n")
    side = ours.config.image_size
    heading("examples", "transformers", "ours, fresh", "ours, reused", "transformers ÷ fresh",
            "transformers ÷ reused", "floor, fresh", "floor, reused", "fresh ÷ floor",
            "reused ÷ floor", "rate of products, GFLOP/s")  # fmt: skip
    with torch.inference_mode():
        for count in numbers(options.examples):
            x = torch.randn(2 * count + 1, 3, side, side, device=device, dtype=dtype)
            _row(theirs, ours, x, count, options.rounds, options.warm_up, device)
        if device == "cpu" and dtype == torch.float32 and not options.without_int8:
            _int8(ours, torch.randn(3, 3, side, side), options.rounds)


def _arguments(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """Query, images, targets, kind."""
    semantic = torch.tensor([False], device=x.device)
    return x[:1], x[None, 1 : count + 1], x[None, count + 1 :], semantic


def _row(
    theirs: Any, ours: SegGPT, x: Tensor, count: int, rounds: int, warm_up: int, device: str
) -> None:
    query, images, targets, semantic = _arguments(x, count)
    encoded = ours.encode(images, targets, semantic)
    products = Products(ours.config, x)
    given = {
        "pixel_values": query.expand(count, -1, -1, -1), "prompt_pixel_values": images[0],
        "prompt_masks": targets[0], "embedding_type": "instance",
        "feature_ensemble": count > 1,
    }  # fmt: skip
    times = alternate(
        {
            "products": products,
            "theirs": lambda: theirs(**given),
            "again": products,
            "fresh": lambda: ours(query, images, targets, semantic),
            "reused": lambda: ours.paint(query, encoded),
        },
        rounds, warm_up, device,
    )  # fmt: skip
    rate = products.rate(Timings(times["products"].seconds + times["again"].seconds))
    flops = Flops.of(ours.config, count)
    floor = flops.fresh / rate, flops.reused / rate
    row(
        count, times["theirs"], times["fresh"], times["reused"],
        ratio(times["theirs"], times["fresh"]), ratio(times["theirs"], times["reused"]),
        *(f"{seconds:.2f} s" for seconds in floor), f"{times['fresh'].median / floor[0]:.2f}",
        f"{times['reused'].median / floor[1]:.2f}", f"{rate / 1e9:.0f}",
    )  # fmt: skip
    if count == 1:  # with more their ensemble is another one, see `tests/model/test_parity.py`
        theirs_painted = theirs(**given).pred_masks[:, :, query.shape[-2] :]
        error = (theirs_painted - ours(query, images, targets, semantic)).abs().max()
        row(f"largest difference of the paintings: {float(error):.1e}", *[""] * 10)


def _int8(ours: SegGPT, x: Tensor, rounds: int) -> None:
    """Ours again with int8 weights: time and what of the painting changes."""
    query, images, targets, semantic = _arguments(x, 1)
    config = ours.config
    quantized = SegGPT(config)
    quantized.load_state_dict(ours.state_dict())
    small = Predictor(quantized, dtype=torch.int8).model
    prompts = [model.encode(images, targets, semantic) for model in (ours, small)]
    times = alternate(
        {
            "float32": lambda: ours.paint(query, prompts[0]),
            "int8": lambda: small.paint(query, prompts[1]),
        },
        rounds,
    )
    exact, rounded = ours.paint(query, prompts[0]), small.paint(query, prompts[1])
    error = float((rounded - exact).norm() / exact.norm())
    print()
    heading("one example, reused", "float32", "int8 weights", "float32 ÷ int8", "error of painting")
    row("", times["float32"], times["int8"], ratio(times["float32"], times["int8"]), f"{error:.3f}")


if __name__ == "__main__":
    main()
