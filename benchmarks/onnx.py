"""ONNX graphs in onnxruntime against PyTorch: encoding a prompt, and queries with it.

`python -m benchmarks.onnx [--quick] [--checkpoint NAME] [--graphs FOLDER]`. All tokens of the
examples are kept; tensors in, tensors out. The graphs are exported first, unless FOLDER has them.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

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
from incontext.checkpoints.checkpoint import load
from incontext.checkpoints.location import display_name
from incontext.checkpoints.onnx_export import write
from incontext.checkpoints.onnx_graphs import prompt_tensors
from incontext.checkpoints.onnx_sessions import METADATA, Sessions
from incontext.model import Model, SegGPT


def main() -> None:
    """Print a row for each number of threads, examples and queries."""
    parser = option_parser(__doc__, rounds=3, threads=None)
    add_checkpoint(parser)
    for name, default, text in (
        ("--examples", "1,4", "Numbers of examples"), ("--batches", "1,8", "Numbers of queries"),
        ("--threads", "1,2", "Numbers of CPU threads"),
    ):  # fmt: skip
        parser.add_argument(
            name, default=default, help=f"{text}, with commas. Default: %(default)s."
        )
    parser.add_argument(
        "--graphs", type=Path, help="Folder of the graphs, which are written there if it is empty."
    )
    add_quick(parser, "Measure a tiny model, one example, one query, one round")
    options = parser.parse_args()
    if options.quick:
        options.examples, options.batches, options.threads, options.rounds = "1", "1", "1", 1
    with quick_checkpoint(options) as checkpoint:
        model, name = load(checkpoint), display_name(checkpoint)
    with tempfile.TemporaryDirectory() as draft:
        folder = options.graphs or Path(draft)
        if not (folder / METADATA).is_file():
            print(f"paintings differ by {max(write(model, folder).differences.values()):.1e}\n")
        for threads in numbers(options.threads):
            torch.set_num_threads(threads)
            print(f"\n{environment()}, {name}, onnxruntime with as many threads\n")
            heading("threads", "examples", "what", "PyTorch", "onnxruntime",
                    "PyTorch ÷ onnxruntime")  # fmt: skip
            for count in numbers(options.examples):
                with torch.inference_mode():
                    _rows(model, Sessions(folder, threads), count, options)


def _rows(model: Model, sessions: Sessions, count: int, options: argparse.Namespace) -> None:
    """Print the cost of a prompt of `count` examples and one id, and of queries with it."""
    side = model.config.image_size
    torch.manual_seed(0)
    images, targets = torch.randn(2, count, 3, side, side)
    examples = {"images": images, "targets": targets, "kind": torch.tensor([True])}
    palette = torch.randn(1, 3)
    inputs = examples if isinstance(model, SegGPT) else {**examples, "palette": palette}
    encode = partial(
        model.encode, images[None], targets[None], examples["kind"], colors=palette[None]
    )
    _row(count, "the prompt", options.rounds, encode, partial(sessions.run, "prompt", **inputs))
    encoded_prompt = encode()
    prompt = prompt_tensors(encoded_prompt)
    for batch in numbers(options.batches):
        query = torch.randn(batch, 3, side, side)
        _row(
            count, "a query" if batch == 1 else f"{batch} queries",
            options.rounds if batch == 1 else max(1, options.rounds - 1),
            partial(model.paint, query, encoded_prompt),
            partial(sessions.run, "query", query=query, **prompt),
        )  # fmt: skip


def _row(count: int, title: str, rounds: int, torch_work: Work, onnx_work: Work) -> None:
    times = alternate({"torch": torch_work, "onnx": onnx_work}, rounds)
    speedup = ratio(times["torch"], times["onnx"])
    row(torch.get_num_threads(), count, title, times["torch"], times["onnx"], speedup)


if __name__ == "__main__":
    main()
