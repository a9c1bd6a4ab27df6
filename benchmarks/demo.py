"""Load: four visitors use the demo at once, each with one job after the other.

`python -m benchmarks.demo [--seconds 120] [--visitors 4]`. The demo runs as a process of its own,
one thread a job; three visitors segment eight images at a time, one follows a clip of 12 frames.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from gradio_client import Client, handle_file
from PIL import Image

from benchmarks.common import environment, heading, option_parser, row


def write_images(folder: Path, count: int) -> tuple[list[Path], list[Path]]:
    """Write images of 640×480 with a bright disc, and their masks."""
    rows, columns = np.mgrid[:480, :640]
    images, masks = [], []
    for number in range(count):
        rng = np.random.default_rng(number)
        inside = (rows - rng.integers(100, 380)) ** 2 + (columns - rng.integers(100, 540)) ** 2
        pixels = rng.integers(20, 90, (480, 640, 3))
        pixels[inside < 80**2] += (140, 120, 60)
        images.append(folder / f"picture{number}.png")
        masks.append(folder / f"mask{number}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(images[-1])
        Image.fromarray((inside < 80**2).astype(np.uint8)).save(masks[-1])
    return images, masks


def write_clip(path: Path, image: Path, frames: int = 12) -> None:
    """Write a video of an image that moves to the side."""
    import av

    pixels = np.asarray(Image.open(image))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.height, stream.width, stream.pix_fmt = 480, 640, "yuv420p"
        for index in range(frames):
            frame = np.ascontiguousarray(np.roll(pixels, 6 * index, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def resident(process: int) -> float:
    """Return the resident memory of a process now, MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


class Visitor(threading.Thread):
    """Calls one job after the other until a time.

    Attributes:
        seconds: of each job.
        errors: of the jobs that failed.
    """

    def __init__(self, address: str, job: str, call: dict[str, Any], until: float) -> None:
        super().__init__()
        self.client = Client(address, verbose=False)
        self.job, self.call, self.until = job, call, until
        self.seconds, self.errors = list[float](), list[str]()

    def run(self) -> None:
        """Call the job again and again."""
        while time.time() < self.until:
            start = time.time()
            try:
                answer = self.client.predict(api_name=f"/{self.job}", **self.call)
                assert not answer[-1].get("failed"), answer[-1]
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
            self.seconds.append(time.time() - start)


def main() -> None:
    """Print one row a job, and memory before and after."""
    parser = option_parser(__doc__, threads=None)
    parser.add_argument(
        "--seconds", type=int, default=120, help="Duration of the visits. Default: %(default)s."
    )
    parser.add_argument(
        "--visitors", type=int, default=4, help="Visitors at the same time. Default: %(default)s."
    )
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "demos", "--port", str(port), "--threads", "1"]
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        with tempfile.TemporaryDirectory() as name:
            visit(f"http://127.0.0.1:{port}", server.pid, Path(name), options)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def visit(address: str, process: int, folder: Path, options: argparse.Namespace) -> None:
    """Let the visitors work, and print the tables."""
    images, masks = write_images(folder, 9)
    write_clip(folder / "clip.mp4", images[0])
    calls: dict[str, dict[str, Any]] = {
        "segment": {
            "examples": [handle_file(str(images[0]))], "masks": [handle_file(str(masks[0]))],
            "pictures": [handle_file(str(p)) for p in images[1:]],
        },
        "track": {
            "clip": handle_file(str(folder / "clip.mp4")), "mask": handle_file(str(masks[0])),
            "frame": 0,
        },
    }  # fmt: skip
    client = _connect(address)
    for job, call in calls.items():  # loads weights and code
        client.predict(api_name=f"/{job}", **call)
    before, memory = resident(process), list[float]()
    until = time.time() + options.seconds
    jobs = ["track" if n == 0 else "segment" for n in range(options.visitors)]
    visitors = [Visitor(address, job, calls[job], until) for job in jobs]
    for visitor in visitors:
        visitor.start()
    while any(visitor.is_alive() for visitor in visitors):
        memory.append(resident(process))
        time.sleep(1)
    _print(visitors, before, memory)


def _connect(address: str) -> Client:
    """Wait until the demo is up."""
    for _ in range(120):
        try:
            return Client(address, verbose=False)
        except Exception:  # not up yet
            time.sleep(0.5)
    raise SystemExit("the demo did not start")


def _print(visitors: list[Visitor], before: float, memory: list[float]) -> None:
    print(environment())
    heading("job", "done", "errors", "median s", "slowest s")
    by_job: dict[str, list[Visitor]] = defaultdict(list)
    for visitor in visitors:
        by_job[visitor.job].append(visitor)
    for job, group in by_job.items():
        seconds = [s for visitor in group for s in visitor.seconds]
        errors = [e for visitor in group for e in visitor.errors]
        row(
            f"{job} ({len(group)} visitors)", len(seconds), len(errors),
            f"{np.median(seconds):.1f}", f"{max(seconds):.1f}",
        )  # fmt: skip
        for text in errors[:3]:
            print(f"  {text}")
    half = len(memory) // 2
    print(
        f"\nmemory of the server: {before:.0f} MiB before, at most {max(memory[:half]):.0f} in the "
        f"first half, {max(memory[half:]):.0f} in the second"
    )


if __name__ == "__main__":
    main()
