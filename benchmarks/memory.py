"""Peak memory by number of examples, ours and transformers' port.

`python -m benchmarks.memory [--ours 1,8,64] [--spilled 8,64] [--theirs 1,8] [--quick]`. Each figure
is the peak resident memory of a process of its own: random weights in the ViT-L shape, float32, one
query of 448×448, the examples made one at a time. Spilled: `Predictor.prompt(…, spill=True)`.
"""

import argparse
import json
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.common import (
    add_quick,
    environment,
    heading,
    in_own_process,
    numbers,
    option_parser,
    peak,
    row,
)
from incontext.inference.offload import DiskChunks
from incontext.model import SIZES, SegGPT


def measure(mode: str, count: int, quick: bool, threads: int) -> dict[str, float]:
    """Encode and paint once; return seconds, and MiB at the peak and with the model alone.

    Args:
        mode: "theirs", "ours" or "spilled".
    """
    torch.set_num_threads(threads)
    config = SIZES["tiny" if quick else "vit-large"]
    torch.manual_seed(0)
    side = config.image_size
    query = torch.randn(1, 3, side, side)

    def examples() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(count):
            image, target = torch.randn(2, 1, 1, 3, side, side)
            yield image, target

    with torch.inference_mode():
        if mode == "theirs":
            from benchmarks.port import model_pair

            port, model = model_pair(quick, "cpu", torch.float32)
            side = model.config.image_size
            del model
            base, start = peak(), time.perf_counter()
            query, images, targets = (torch.randn(count, 3, side, side) for _ in range(3))
            painting = port(
                pixel_values=query, prompt_pixel_values=images, prompt_masks=targets,
                embedding_type="instance", feature_ensemble=count > 1,
            ).pred_masks  # fmt: skip
        else:
            model = SegGPT(config).eval()
            base, start = peak(), time.perf_counter()
            parts = DiskChunks() if mode == "spilled" else None
            encoded_prompt = model.encode_batches(examples(), torch.tensor([False]), storage=parts)
            painting = model.paint(query, encoded_prompt)
    if not painting.isfinite().all():
        raise RuntimeError("the painting is not finite")
    return {"seconds": time.perf_counter() - start, "peak": peak(), "base": base}


def main() -> None:
    """Print a row for each number of examples."""
    parser = option_parser(__doc__)
    for name, default, model in (
        ("--ours", "1,8,64", "our model"), ("--spilled", "8,64", "our model with spill=True"),
        ("--theirs", "1,8", "transformers' port"),
    ):  # fmt: skip
        text = f"Numbers of examples for {model}, with commas. Default: %(default)s."
        parser.add_argument(name, default=default, help=text)
    add_quick(parser, "Measure a tiny model")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        mode, count = options.one
        print(json.dumps(measure(mode, int(count), options.quick, options.threads)))
        return
    torch.set_num_threads(options.threads)
    print(f"{environment()}, float32, {'tiny' if options.quick else 'ViT-L'}\n")
    heading("", "examples", "peak, MiB", "with the model alone, MiB", "seconds")
    for mode in ("theirs", "ours", "spilled"):
        for count in numbers(getattr(options, mode)):
            flags = ["--quick"] if options.quick else []
            figures = in_own_process(
                "benchmarks.memory", "--one", mode, count, "--threads", options.threads, *flags
            )
            name = {"theirs": "transformers", "ours": "ours", "spilled": "ours, spilled"}[mode]
            row(name, count, f"{figures['peak']:.0f}", f"{figures['base']:.0f}",
                f"{figures['seconds']:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
