"""Video: memory through a long stream, and frames a second against K.

`python -m benchmarks.video [--frames 10000] [--quick]`. The bundled checkpoint on frames of 320×240
made one at a time; each row of the first table is read off the same process while it goes on.
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

from benchmarks.common import CHECKPOINT, environment, heading, numbers, peak, row
from incontext import VideoPredictor
from incontext.video.policies import CycleConsistencyPolicy, MemoryPolicy, SegGPTPolicy

SIZE = (240, 320)  # height and width
MARKS = (100, 200, 500, 1000, 2000, 5000, 10_000)


def stream(count: int) -> Iterator[Image.Image]:
    """A bright patch that goes round over a rough ground, a little noise on all."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 110, (*SIZE, 3))
    patch = rng.integers(180, 240, (50, 50, 3)) * np.array([1.0, 0.4, 0.3])
    for index in range(count):
        pixels = ground + rng.integers(-4, 5, (*SIZE, 3))
        pixels[place(index)] = patch
        yield Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def place(index: int) -> tuple[slice, slice]:
    """Where the patch is."""
    top = round(90 + 60 * np.sin(index / 17))
    left = round(130 + 100 * np.cos(index / 23))
    return slice(top, top + 50), slice(left, left + 50)


def labels() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Of the first frame."""
    ids = np.zeros(SIZE, np.uint8)
    ids[place(0)] = 1
    return ids


def long(checkpoint: str, frames: int, keep: int, threads: int) -> None:
    """One stream; peak memory of the process at every mark, a line of JSON each."""
    torch.set_num_threads(threads)
    video = VideoPredictor.from_pretrained(checkpoint, policy=CycleConsistencyPolicy(keep))
    started, missed = time.perf_counter(), 0
    for index, result in video.track(stream(frames), labels()):
        truth = np.zeros(SIZE, bool)
        truth[place(index)] = True
        union = (truth | (result.labels == 1)).sum()
        missed += (truth & (result.labels == 1)).sum() / union < 0.5
        if index + 1 in MARKS or index + 1 == frames:
            rate = (index + 1) / (time.perf_counter() - started)
            said = {"frames": index + 1, "peak": peak(), "rate": rate, "missed": int(missed)}
            print(json.dumps(said), flush=True)


def against_keep(checkpoint: str, keeps: list[int], frames: int, threads: int) -> None:
    """Frames a second for each K and rule, in turn, frame by frame of the same stream."""
    torch.set_num_threads(threads)
    predictor = VideoPredictor.from_pretrained(checkpoint).predictor
    rules: dict[str, MemoryPolicy] = {}
    for keep in keeps:
        rules[f"ours, K = {keep}"] = CycleConsistencyPolicy(keep)
        if keep:
            rules[f"without asking back, K = {keep}"] = CycleConsistencyPolicy(keep, back=0)
            rules[f"official, K = {keep}"] = SegGPTPolicy(keep)
    warm = max(keeps) + 1
    tracks = {
        name: VideoPredictor(predictor, policy=rule).track(stream(frames + warm), labels())
        for name, rule in rules.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in tracks}
    for number in range(frames + warm):
        for name, track in tracks.items():
            start = time.perf_counter()
            next(track)
            if number >= warm:
                seconds[name].append(time.perf_counter() - start)
    base = float(np.median(seconds[f"ours, K = {keeps[0]}"]))
    print()
    heading("memory", "a frame", "frames/s", f"÷ K = {keeps[0]}", "encodings a frame")
    for name, taken in seconds.items():
        middle, memory = float(np.median(taken)), tracks[name].memory
        row(name, f"{1000 * middle:.0f} ms", f"{1 / middle:.1f}", f"{middle / base:.2f}",
            f"{memory.encodings / (frames + warm):.2f}")  # fmt: skip


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default=CHECKPOINT)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--keep", type=int, default=4, help="K of the long stream")
    parser.add_argument("--keeps", default="0,1,4,8")
    parser.add_argument("--rounds", type=int, default=20, help="frames a K is timed on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="120 frames")
    parser.add_argument("--long", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.frames, options.keeps, options.rounds = 120, "0,1", 3
    if options.long:
        long(options.checkpoint, options.frames, options.keep, options.threads)
        return
    torch.set_num_threads(options.threads)
    print(f"{environment()}, {options.checkpoint}, frames of {SIZE[1]}×{SIZE[0]}\n")
    heading(f"frames, K = {options.keep}", "peak, MiB", "÷ after 100", "frames/s", "IoU below 0.5")
    command = [sys.executable, "-m", "benchmarks.video", "--long", "--frames", options.frames,
               "--keep", options.keep, "--threads", options.threads,
               "--checkpoint", options.checkpoint]  # fmt: skip
    first = None
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            found = json.loads(line)
            first = first or found["peak"]
            row(found["frames"], f"{found['peak']:.0f}", f"{found['peak'] / first:.3f}",
                f"{found['rate']:.1f}", found["missed"])  # fmt: skip
    keeps = list(numbers(options.keeps))
    against_keep(options.checkpoint, keeps, options.rounds, options.threads)


if __name__ == "__main__":
    main()
