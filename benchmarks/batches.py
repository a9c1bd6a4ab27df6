"""Queries a second by batch size.

`python -m benchmarks.batches [--quick] [--device cuda --dtype bfloat16 --size vit-large]`. A
checkpoint (--checkpoint) with one and with 16 examples, or random weights of some size; tensors in,
tensors out.
"""

from functools import partial

import torch

from benchmarks.common import (
    add_checkpoint,
    add_quick,
    alternate,
    environment,
    heading,
    numbers,
    option_parser,
    quick_checkpoint,
    row,
)
from incontext.checkpoints.checkpoint import load
from incontext.checkpoints.location import display_name
from incontext.model import SIZES, assemble


def main() -> None:
    """Print a row for each batch size."""
    parser = option_parser(__doc__, rounds=7)
    add_checkpoint(parser)
    parser.add_argument(
        "--batches", default="1,2,4,8,16,32", help="Batch sizes, with commas. Default: %(default)s."
    )
    parser.add_argument(
        "--size", default="", choices=["", *sorted(SIZES)],
        help="Measure random weights of this size instead of a checkpoint.",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="Device to measure. Default: %(default)s.")
    parser.add_argument(
        "--dtype", default="float32", help="Precision of the model. Default: %(default)s."
    )
    add_quick(parser, "Measure a tiny model, two batch sizes, one round")
    options = parser.parse_args()
    if options.quick:
        options.batches, options.rounds = "1,8", 1
    torch.set_num_threads(options.threads)
    device, dtype = options.device, getattr(torch, options.dtype)
    size = options.size
    with quick_checkpoint(options) as checkpoint:
        model = assemble(SIZES[size]).eval() if size else load(checkpoint)
    model = model.to(device, dtype)
    side = model.config.image_size
    print(f"{environment(device)}, {size or display_name(checkpoint)}, {options.dtype}\n")
    heading("batch", "1 example, a batch", "queries a second", "16 examples, a batch",
            "queries a second")  # fmt: skip
    with torch.inference_mode():
        semantic = torch.tensor([True], device=device)
        colors = torch.randn(1, 1, 3, device=device, dtype=dtype)  # of one id
        prompts = []
        for count in (1, 16):
            images, targets = torch.randn(2, 1, count, 3, side, side, device=device, dtype=dtype)
            # As the predictor keeps them: the tokens of four examples at the most.
            parts = zip(images.split(8, 1), targets.split(8, 1), strict=True)
            share = min(1.0, 4 / count)
            prompts.append(model.encode_batches(parts, semantic, keep_ratio=share, colors=colors))
        for batch in numbers(options.batches):
            x = torch.randn(batch, 3, side, side, device=device, dtype=dtype)
            works = {str(n): partial(model.paint, x, p) for n, p in enumerate(prompts)}
            times = alternate(works, options.rounds, device=device)
            cells = [c for t in times.values() for c in (t, f"{batch / t.median:.1f}")]
            row(batch, *cells)


if __name__ == "__main__":
    main()
