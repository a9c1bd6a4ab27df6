"""Video: memory through a long stream, and frames a second by number of frames remembered, K.

`python -m benchmarks.video [--frames 10000] [--quick]`. A checkpoint on frames of 320×240 that are
drawn one at a time; all rows of the first table come from one process.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from benchmarks.common import (
    add_checkpoint,
    add_quick,
    environment,
    heading,
    numbers,
    option_parser,
    peak,
    quick_checkpoint,
    row,
)
from incontext import VideoPredictor
from incontext.checkpoints.location import display_name
from incontext.model import VotingModel
from incontext.model.votes.features import FeatureCache
from incontext.video.policies import CycleConsistencyPolicy, MemoryPolicy, SegGPTPolicy

SIZE = (240, 320)  # height and width
MARKS = (100, 200, 500, 1000, 2000, 5000, 10_000)


def stream(count: int) -> Iterator[Image.Image]:
    """Yield frames of a bright patch that circles over a rough ground, with a little noise."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 110, (*SIZE, 3))
    patch = rng.integers(180, 240, (50, 50, 3)) * np.array([1.0, 0.4, 0.3])
    for index in range(count):
        pixels = ground + rng.integers(-4, 5, (*SIZE, 3))
        pixels[patch_slices(index)] = patch
        yield Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def patch_slices(index: int) -> tuple[slice, slice]:
    """Return the rows and columns of the patch in a frame."""
    y = round(90 + 60 * np.sin(index / 17))
    x = round(130 + 100 * np.cos(index / 23))
    return slice(y, y + 50), slice(x, x + 50)


def labels() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Return the labels of the first frame."""
    ids = np.zeros(SIZE, np.uint8)
    ids[patch_slices(0)] = 1
    return ids


def follow_stream(checkpoint: str, frames: int, keep: int, threads: int) -> None:
    """Follow one stream; print peak memory of the process at every mark, a line of JSON each."""
    torch.set_num_threads(threads)
    video = VideoPredictor.from_pretrained(checkpoint, policy=CycleConsistencyPolicy(keep))
    start, bad_frames = time.perf_counter(), 0
    for index, result in video.track(stream(frames), labels()):
        truth = np.zeros(SIZE, bool)
        truth[patch_slices(index)] = True
        union = (truth | (result.labels == 1)).sum()
        bad_frames += (truth & (result.labels == 1)).sum() / union < 0.5
        if index + 1 in MARKS or index + 1 == frames:
            rate = (index + 1) / (time.perf_counter() - start)
            figures = {"frames": index + 1, "peak": peak(), "rate": rate, "bad": int(bad_frames)}
            print(json.dumps(figures), flush=True)


def compare_policies(checkpoint: str, keeps: list[int], frames: int, threads: int) -> None:
    """Print frames a second for each K and policy, which take turns frame by frame."""
    torch.set_num_threads(threads)
    predictor = VideoPredictor.from_pretrained(checkpoint).predictor
    model = predictor.model
    policies: dict[str, MemoryPolicy] = {}
    for keep in keeps:
        policies[f"ours, K = {keep}"] = CycleConsistencyPolicy(keep)
        if keep:
            policies[f"without asking back, K = {keep}"] = CycleConsistencyPolicy(keep, back=0)
            policies[f"official, K = {keep}"] = SegGPTPolicy(keep)
    # Until each memory is full. Means of whole intervals: one of their frames is checked.
    interval = CycleConsistencyPolicy().interval
    warm_up, frames = interval * max(keeps) + 1, interval * -(-frames // interval)
    tracks = {
        name: VideoPredictor(predictor, policy=policy).track(stream(frames + warm_up), labels())
        for name, policy in policies.items()
    }
    # Of its own for each: all see the same frames, and none may find what another extracted.
    caches = {name: FeatureCache() for name in tracks}
    seconds: dict[str, list[float]] = {name: [] for name in tracks}
    for number in range(frames + warm_up):
        for name, track in tracks.items():
            if isinstance(model, VotingModel):
                model.feature_cache = caches[name]
            start = time.perf_counter()
            next(track)
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    base = float(np.mean(seconds[f"ours, K = {keeps[0]}"]))
    print()
    heading("memory", "a frame", "frames/s", f"÷ K = {keeps[0]}", "encodings a frame")
    for name, values in seconds.items():
        mean, memory = float(np.mean(values)), tracks[name].memory
        row(name, f"{1000 * mean:.0f} ms", f"{1 / mean:.1f}", f"{mean / base:.2f}",
            f"{memory.encodings / (frames + warm_up):.2f}")  # fmt: skip


def main() -> None:
    """Print both tables."""
    parser = option_parser(__doc__)
    add_checkpoint(parser)
    parser.add_argument(
        "--frames",
        type=int,
        default=10_000,
        help="Frames of the long stream. Default: %(default)s.",
    )
    parser.add_argument(
        "--keep", type=int, default=4, help="K of the long stream. Default: %(default)s."
    )
    parser.add_argument(
        "--keeps",
        default="0,1,4,8",
        help="Numbers K to compare, with commas. Default: %(default)s.",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=20,
        help="Timed frames of each K and policy, whole intervals of checks. Default: %(default)s.",
    )
    add_quick(parser, "Measure a tiny model on 20 frames")
    parser.add_argument("--long", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.frames, options.keeps, options.rounds = 20, "0,1", 3
    if options.long:
        follow_stream(options.checkpoint, options.frames, options.keep, options.threads)
        return
    torch.set_num_threads(options.threads)
    with quick_checkpoint(options) as checkpoint:
        _print_tables(checkpoint, options)


def _print_tables(checkpoint: str, options: argparse.Namespace) -> None:
    print(f"{environment()}, {display_name(checkpoint)}, frames of {SIZE[1]}×{SIZE[0]}\n")
    heading(f"frames, K = {options.keep}", "peak, MiB", "÷ after 100", "frames/s", "IoU below 0.5")
    command = [sys.executable, "-m", "benchmarks.video", "--long", "--frames", options.frames,
               "--keep", options.keep, "--threads", options.threads,
               "--checkpoint", checkpoint]  # fmt: skip
    first_peak = None
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            figures = json.loads(line)
            first_peak = first_peak or figures["peak"]
            row(figures["frames"], f"{figures['peak']:.0f}", f"{figures['peak'] / first_peak:.3f}",
                f"{figures['rate']:.1f}", figures["bad"])  # fmt: skip
    keeps = list(numbers(options.keeps))
    compare_policies(checkpoint, keeps, options.rounds, options.threads)


if __name__ == "__main__":
    main()
