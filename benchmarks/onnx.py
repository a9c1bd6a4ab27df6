"""The ONNX graphs in onnxruntime beside PyTorch: encoding a prompt, and queries with it.

`python -m benchmarks.onnx [--quick] [--checkpoint NAME] [--graphs FOLDER]`. All tokens of the
examples are kept; tensors in, tensors out. The graphs are exported first, unless FOLDER has them.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks.common import CHECKPOINT, Work, alternate, environment, heading, numbers, ratio, row
from incontext.checkpoints.checkpoint import load
from incontext.checkpoints.onnx_export import ABOUT, Sessions, write
from incontext.checkpoints.onnx_graphs import prompt_tensors
from incontext.model import Model, SegGPT


def main() -> None:
    """Print a row for each number of threads, examples and queries."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default=CHECKPOINT)
    parser.add_argument("--examples", default="1,4")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=3, help="one less for larger batches")
    parser.add_argument("--graphs", type=Path, help="where graphs are, or are to be written")
    parser.add_argument("--quick", action="store_true", help="one example, one query, two rounds")
    options = parser.parse_args()
    if options.quick:
        options.examples, options.batches, options.threads, options.rounds = "1", "1", "2", 2
    model = load(options.checkpoint)
    with tempfile.TemporaryDirectory() as draft:
        folder = options.graphs or Path(draft)
        if not (folder / ABOUT).is_file():
            print(f"paintings differ by {max(write(model, folder).differences.values()):.1e}\n")
        for threads in numbers(options.threads):
            torch.set_num_threads(threads)
            print(f"\n{environment()}, {options.checkpoint}, onnxruntime with as many threads\n")
            heading("threads", "examples", "what", "PyTorch", "onnxruntime",
                    "PyTorch ÷ onnxruntime")  # fmt: skip
            for count in numbers(options.examples):
                with torch.inference_mode():
                    _rows(model, Sessions(folder, threads), count, options)


def _rows(model: Model, sessions: Sessions, count: int, options: argparse.Namespace) -> None:
    """What a prompt of so many examples costs, and what queries with it do; one id."""
    side = model.config.image_size
    torch.manual_seed(0)
    images, targets = torch.randn(2, count, 3, side, side)
    shown = {"images": images, "targets": targets, "kind": torch.tensor([True])}
    palette = torch.randn(1, 3)
    taken = shown if isinstance(model, SegGPT) else {**shown, "palette": palette}
    encode = partial(model.encode, images[None], targets[None], shown["kind"], colors=palette[None])
    _row(count, "the prompt", options.rounds, encode, partial(sessions.run, "prompt", **taken))
    encoded = encode()
    prompt = prompt_tensors(encoded)
    for batch in numbers(options.batches):
        query = torch.randn(batch, 3, side, side)
        _row(
            count, "a query" if batch == 1 else f"{batch} queries",
            options.rounds if batch == 1 else max(1, options.rounds - 1),
            partial(model.paint, query, encoded),
            partial(sessions.run, "query", query=query, **prompt),
        )  # fmt: skip


def _row(count: int, what: str, rounds: int, ours: Work, theirs: Work) -> None:
    times = alternate({"torch": ours, "onnx": theirs}, rounds)
    between = ratio(times["torch"], times["onnx"])
    row(torch.get_num_threads(), count, what, times["torch"], times["onnx"], between)


if __name__ == "__main__":
    main()
