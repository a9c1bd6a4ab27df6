"""Our SegGPT against transformers' port: same weights, same run, alternating.

`python -m benchmarks.port [--examples 1,4,8] [--rounds 3] [--quick]`. Random weights in the
official ViT-L shape, one query of 448×448. "fresh" encodes the prompt for each query, as the port
has to; "reused" has it encoded before. The floor is the arithmetic that remains, at the rate that
matrix products of the model's own shapes reach in the same run.
"""

import tempfile
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import (
    Timings,
    add_quick,
    alternate,
    environment,
    heading,
    numbers,
    option_parser,
    ratio,
    row,
)
from incontext import Predictor
from incontext.checkpoints.checkpoint import load
from incontext.model import Config, SegGPT

TINY: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4, "image_size": (256, 128),
    "pretrain_image_size": 64, "mlp_dim": 256, "decoder_hidden_size": 16,
    "intermediate_hidden_state_indices": [2, 4, 6, 7],
}  # fmt: skip


def model_pair(tiny: bool, device: str, dtype: torch.dtype) -> tuple[Any, SegGPT]:
    """Return transformers' model and ours with the same random weights."""
    import transformers

    torch.manual_seed(0)
    config = transformers.SegGptConfig(**(TINY if tiny else {}))
    port = transformers.SegGptForImageSegmentation(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        port.save_pretrained(folder)
        model = load(folder)
    assert isinstance(model, SegGPT)
    return port.to(device, dtype), model.to(device, dtype)


@dataclass(frozen=True)
class Flops:
    """Floating-point operations that one query with N examples needs at least.

    Attributes:
        fresh: with encoding of the prompt.
        reused: with the prompt encoded before.
    """

    fresh: float
    reused: float

    @classmethod
    def from_config(cls, config: Config, examples: int) -> "Flops":
        """Count linear layers, attention and decoder; a multiply-add counts as two.

        The target stream of the first blocks belongs to the prompt. Attention: each example
        attends to its canvas, the query to itself once and to each example. In the last block
        examples give keys and values only.
        """
        tokens = (config.image_size // config.patch_size) ** 2
        dim, mlp_width = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
        token = 2 * (4 * dim * dim + 2 * dim * mlp_width)
        quarter = 4 * tokens * tokens * dim
        block = (examples + 1) * tokens * token + (3 * examples + 1) * quarter
        last = tokens * (token + examples * 4 * dim * dim) + (examples + 1) * quarter
        decoded_tokens = tokens + config.image_size // config.patch_size
        pixels = config.decoder_dim * config.patch_size**2
        decoder = 2 * decoded_tokens * pixels * (len(config.taps) * dim + 9 * config.decoder_dim)
        embed = 2 * tokens * 3 * config.patch_size**2 * dim
        reused = (config.depth - 1) * block + last + decoder + embed
        return cls(reused + (config.merge_after + 1) * block + 2 * examples * embed, reused)


class Products:
    """Matrix products of a block's shapes, which show the best rate of this machine."""

    def __init__(self, config: Config, x: Tensor) -> None:
        tokens = 2 * (config.image_size // config.patch_size) ** 2
        dim, mlp_width = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
        shapes = [(dim, 3 * dim), (dim, dim), (dim, mlp_width), (mlp_width, dim)]
        self.pairs = [(x.new_ones(tokens, i), x.new_ones(o, i)) for i, o in shapes]
        self.flops = 2 * tokens * sum(i * o for i, o in shapes)

    def __call__(self) -> None:
        """Compute all products once."""
        for a, b in self.pairs:
            F.linear(a, b)

    def rate(self, timings: Timings) -> float:
        """Return FLOP a second."""
        return self.flops / timings.median


def main() -> None:
    """Print the tables."""
    parser = option_parser(__doc__, rounds=3)
    parser.add_argument(
        "--examples",
        default="1,4,8",
        help="Numbers of examples, with commas. Default: %(default)s.",
    )
    parser.add_argument(
        "--warm-up", type=int, default=1, help="Untimed runs first. Default: %(default)s."
    )
    parser.add_argument("--device", default="cpu", help="Device to measure. Default: %(default)s.")
    parser.add_argument(
        "--dtype", default="float32", help="Precision of the models. Default: %(default)s."
    )
    parser.add_argument(
        "--without-int8", action="store_true", help="Leave out the table of int8 weights."
    )
    add_quick(parser, "Measure a tiny model")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype, device = getattr(torch, options.dtype), options.device
    port, model = model_pair(options.quick, device, dtype)
    print(f"{environment(device)}, {options.dtype}, {'tiny' if options.quick else 'ViT-L'}\n")
    side = model.config.image_size
    heading("examples", "transformers", "ours, fresh", "ours, reused", "transformers ÷ fresh",
            "transformers ÷ reused", "floor, fresh", "floor, reused", "fresh ÷ floor",
            "reused ÷ floor", "rate of products, GFLOP/s")  # fmt: skip
    with torch.inference_mode():
        for count in numbers(options.examples):
            x = torch.randn(2 * count + 1, 3, side, side, device=device, dtype=dtype)
            _row(port, model, x, count, options.rounds, options.warm_up, device)
        if device == "cpu" and dtype == torch.float32 and not options.without_int8:
            _int8(model, torch.randn(3, 3, side, side), options.rounds)


def _arguments(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """Split random pixels into query, images, targets, and add the kind."""
    semantic = torch.tensor([False], device=x.device)
    return x[:1], x[None, 1 : count + 1], x[None, count + 1 :], semantic


def _row(
    port: Any, model: SegGPT, x: Tensor, count: int, rounds: int, warm_up: int, device: str
) -> None:
    query, images, targets, semantic = _arguments(x, count)
    encoded_prompt = model.encode(images, targets, semantic)
    products = Products(model.config, x)
    port_inputs = {
        "pixel_values": query.expand(count, -1, -1, -1), "prompt_pixel_values": images[0],
        "prompt_masks": targets[0], "embedding_type": "instance",
        "feature_ensemble": count > 1,
    }  # fmt: skip
    times = alternate(
        {
            "products": products,
            "theirs": lambda: port(**port_inputs),
            "again": products,
            "fresh": lambda: model(query, images, targets, semantic),
            "reused": lambda: model.paint(query, encoded_prompt),
        },
        rounds, warm_up, device,
    )  # fmt: skip
    rate = products.rate(Timings(times["products"].seconds + times["again"].seconds))
    flops = Flops.from_config(model.config, count)
    floor = flops.fresh / rate, flops.reused / rate
    row(
        count, times["theirs"], times["fresh"], times["reused"],
        ratio(times["theirs"], times["fresh"]), ratio(times["theirs"], times["reused"]),
        *(f"{seconds:.2f} s" for seconds in floor), f"{times['fresh'].median / floor[0]:.2f}",
        f"{times['reused'].median / floor[1]:.2f}", f"{rate / 1e9:.0f}",
    )  # fmt: skip
    if count == 1:  # with more the port's ensemble differs, see `tests/model/test_parity.py`
        port_painting = port(**port_inputs).pred_masks[:, :, query.shape[-2] :]
        error = (port_painting - model(query, images, targets, semantic)).abs().max()
        row(f"largest difference of the paintings: {float(error):.1e}", *[""] * 10)


def _int8(model: SegGPT, x: Tensor, rounds: int) -> None:
    """Print time and error of our model with int8 weights."""
    query, images, targets, semantic = _arguments(x, 1)
    quantized = SegGPT(model.config)
    quantized.load_state_dict(model.state_dict())
    int8_model = Predictor(quantized, dtype=torch.int8).model
    prompts = [m.encode(images, targets, semantic) for m in (model, int8_model)]
    times = alternate(
        {
            "float32": lambda: model.paint(query, prompts[0]),
            "int8": lambda: int8_model.paint(query, prompts[1]),
        },
        rounds,
    )
    exact, approximate = model.paint(query, prompts[0]), int8_model.paint(query, prompts[1])
    error = float((approximate - exact).norm() / exact.norm())
    print()
    heading("one example, reused", "float32", "int8 weights", "float32 ÷ int8", "error of painting")
    row("", times["float32"], times["int8"], ratio(times["float32"], times["int8"]), f"{error:.3f}")


if __name__ == "__main__":
    main()
