"""The demo as a process of its own, and what its tests paint and upload."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def served(*options: str) -> Iterator[str]:
    """Address of a demo that runs while the block does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "demos", "--port", str(port), "--threads", "1", *options]
    # A proxy that is down: the page asks nobody but itself.
    proxy = dict.fromkeys(("HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9")
    environment = {**os.environ, **proxy, "NO_PROXY": "", "no_proxy": "", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=root, env=environment)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, "the demo ended at once"
                time.sleep(0.5)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def scene(seed: int, size: tuple[int, int] = (200, 480)) -> tuple[np.ndarray, np.ndarray]:
    """A bright ellipse on green, (H, W, 3), and where it is, (H, W) bool."""
    rng = np.random.default_rng(seed)
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    y, x = rng.integers(60, height - 60), rng.integers(70, width - 70)
    inside = ((rows - y) / 40) ** 2 + ((columns - x) / 50) ** 2 < 1
    picture = np.full((height, width, 3), (20, 110, 60)) + rng.integers(-6, 7, (height, width, 1))
    picture[inside] = np.array((225, 215, 150)) + rng.integers(-6, 7, (int(inside.sum()), 1))
    return picture.clip(0, 255).astype(np.uint8), inside


def labelled(folder: Path, count: int) -> tuple[list[Path], list[Path]]:
    """Files of so many scenes and of their masks."""
    pictures, masks = [], []
    for seed in range(count):
        picture, inside = scene(seed)
        pictures.append(folder / f"scene{seed}.png")
        masks.append(folder / "masks" / f"scene{seed}.png")
        masks[-1].parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(pictures[-1])
        Image.fromarray(inside.astype(np.uint8)).save(masks[-1])
    return pictures, masks


def clip(path: Path, frames: int = 6) -> np.ndarray:
    """A video in which the ellipse of a scene moves to the right; the masks, (T, H, W) bool."""
    import av

    picture, inside = scene(5)
    masks = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "16"})
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
        for index in range(frames):
            moved = np.ascontiguousarray(np.roll(picture, 8 * index, 1))
            masks.append(np.roll(inside, 8 * index, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode(None))
    return np.stack(masks)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks."""
    return float((one & other).sum() / (one | other).sum())
