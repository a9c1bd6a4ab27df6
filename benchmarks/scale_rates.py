"""Rates: images a second of each step on this machine, and the cost of millions of images."""

import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.blobs import blobs, write_blobs
from benchmarks.common import environment, heading, in_own_process, row
from incontext import Example, Predictor, Prompt
from incontext.batch.engines import segment_with
from incontext.batch.inputs import InputImage, find_images
from incontext.batch.journal import Journal
from incontext.batch.manifest import Manifest
from incontext.batch.records import read
from incontext.checkpoints.location import display_name
from incontext.images.image import read_image

SIZE = (640, 480)
SCALES = {"1 M": 10**6, "100 M": 10**8, "10 G": 10**10}


def main(checkpoint: str, quick: bool) -> None:
    """Print a table of measurements, and one of costs that follow from them."""
    files, entries, pictures = (2000, 2000, 16) if quick else (50_000, 100_000, 96)
    print(f"{environment()}, {display_name(checkpoint)}, pictures of {SIZE[0]}×{SIZE[1]} as JPEG\n")
    heading("step", "measured")
    with tempfile.TemporaryDirectory(prefix="incontext-rates-") as space:
        root = Path(space)
        listing, listing_bytes = _listing(root / "many", files)
        row("listing, pictures a second", f"{listing:,.0f}")
        row("… memory, bytes a picture", f"{listing_bytes:.0f}")
        rates = _steps(root, checkpoint, pictures)
        manifest = in_own_process(
            "benchmarks.scale", "memory", "--pictures", entries, "--checkpoint", checkpoint
        )
        for name in ("journal lines written", "entries folded", "entries read"):
            row(f"{name} a second", f"{manifest[name]:,.0f}")
        row("results.json, bytes a picture", f"{manifest['bytes']:.0f}")
        row("its memory, bytes a picture", f"{manifest['memory']:.0f}")
        row("… while it is read", f"{manifest['peak']:.0f}")
    print("\nArithmetic with these rates, nothing of it measured:\n")
    memory_bytes = listing_bytes + manifest["peak"]
    _print_costs(rates | manifest | {"listing": listing, "memory": memory_bytes})


def _rate(count: int, work: Callable[[], object]) -> float:
    """Return items a second."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def _listing(folder: Path, count: int) -> tuple[float, float]:
    """List empty files in folders of a thousand; return files a second and bytes a file."""
    for number in range(count):
        path = folder / f"{number // 1000:04d}" / f"{number:08d}.jpg"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.touch()
    before, inputs = _resident(), list[InputImage]()
    rate = _rate(count, lambda: inputs.extend(find_images([folder], folder.parent / "out")))
    return rate, (_resident() - before) / count


def _steps(root: Path, checkpoint: str, count: int) -> dict[str, float]:
    """Measure each step of a worker, and whole runs with each engine."""
    paths = write_blobs(root / "in", count, SIZE, ".jpg")
    reading = _rate(count, lambda: [read_image(path) for path in paths])
    row("reading and decoding, pictures a second (1 core)", f"{reading:,.0f}")
    predictor = Predictor.from_pretrained(checkpoint, device="cpu")
    prompt = predictor.prompt(Example(root / "example.png", root / "mask.png"))
    images = [blobs(number, SIZE)[0] for number in range(min(count, 32))]
    model = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        predictor.predict(images[:8], prompt)
        model[threads] = _rate(len(images), lambda: predictor.predict(images, prompt))
        unit = "thread" if threads == 1 else "threads"
        row(f"model, pictures a second ({threads} {unit})", f"{model[threads]:.1f}")
    torch.set_num_threads(1)
    results = predictor.predict(images[:16], prompt)
    folder = root / "written"
    outputs = [(f"{number:05d}", result) for number, result in enumerate(results)]
    writing = _rate(16, lambda: [result.save(folder, name) for name, result in outputs])
    row("writing results, pictures a second (1 core)", f"{writing:.0f}")
    size = sum(path.stat().st_size for path in folder.iterdir()) / 16
    source = sum(path.stat().st_size for path in paths) / count
    row("a picture, bytes", f"{source:,.0f}")
    row("its results, bytes (3 files)", f"{size:,.0f}")
    inputs = find_images([root / "in"], root / "out")
    engine_rates = _engines(root, checkpoint, predictor, prompt, inputs)
    return {"model": model[1], "core": engine_rates["local"], "in": source, "out": size}


def _engines(
    root: Path, checkpoint: str, predictor: Predictor, prompt: Prompt, inputs: list[InputImage]
) -> dict[str, float]:
    """Measure whole runs, from the first result on, since an engine starts only once."""
    rates = {}
    times: list[float] = []
    for engine, workers in (("local", None), ("processes", 2), ("ray", 2)):
        times.clear()
        manifest = Manifest.open(root / f"out-{engine}", {}, prompt, False)
        start = time.perf_counter()
        segment_with(
            engine, workers, predictor, prompt, inputs, manifest, checkpoint=checkpoint,
            device="cpu", dtype="float32", batch_size=8,
            on_result=lambda *_: times.append(time.perf_counter()),
        )  # fmt: skip
        later = [moment for moment in times if moment > times[0] + 0.01]
        rates[engine] = len(later) / (times[-1] - times[0])
        row(f"whole run, pictures a second (--engine {engine}, {workers or 1} "
            f"{'process' if not workers else 'workers'})",
            f"{rates[engine]:.1f} after {times[0] - start:.1f} s")  # fmt: skip
    return rates


def memory(checkpoint: str, entries: int) -> None:
    """Print as JSON the cost of a manifest with that many entries."""
    predictor = Predictor.from_pretrained(checkpoint, device="cpu")
    prompt = predictor.prompt(Example(*blobs(0, SIZE)))
    with tempfile.TemporaryDirectory(prefix="incontext-entries-") as space:
        figures = _manifest_costs(Manifest.open(Path(space), {}, prompt, False), prompt, entries)
    print(json.dumps(figures))


def _manifest_costs(manifest: Manifest, prompt: Prompt, entries: int) -> dict[str, float]:
    entry: dict[str, Any] = {
        "source": {"path": "/data/pictures/0000/00000000.jpg", "bytes": 123456,
                   "modified_ns": 1700000000000000000},
        "size": [640, 480], "confidence": 0.9876, "ids": {"1": {"pixels": 12345, "presence": 1.0}},
        "files": {"confidence": "0000/00000000.confidence.png", "labels": "0000/00000000.png",
                  "overlay": "0000/00000000.overlay.jpg"},
    }  # fmt: skip
    inputs = [InputImage(Path("x"), f"0000/{number:08d}") for number in range(entries)]
    with manifest.open_journal() as journal:
        lines = _rate(entries, lambda: _write(journal, inputs, entry))
    inputs.clear()
    before = _resident()
    manifests: list[Manifest] = []
    folding = _rate(entries, lambda: manifests.append(_fold(manifest, prompt)))
    after = _resident()
    size = manifest.path.stat().st_size
    manifests.clear()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    start = _resident()
    reading = _rate(entries, lambda: read(manifest.path))
    peak = _peak() - start
    return {
        "journal lines written": lines, "entries folded": folding, "entries read": reading,
        "bytes": size / entries, "memory": (after - before) / entries, "peak": peak / entries,
    }  # fmt: skip


def _write(journal: Journal, inputs: list[InputImage], entry: dict[str, Any]) -> None:
    for item in inputs:
        journal.finish(item, entry)


def _fold(manifest: Manifest, prompt: Prompt) -> Manifest:
    """Open the manifest and save it with the journal's entries, as the run after a kill does."""
    reopened_manifest = Manifest.open(manifest.folder, {}, prompt, False)
    reopened_manifest.save()
    return reopened_manifest


def _resident() -> int:
    """Return the resident memory of this process, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _peak() -> int:
    """Return the peak, bytes; `ru_maxrss` would count the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _print_costs(rate: dict[str, float]) -> None:
    hour, day = 1 / 3600, 1 / 86_400
    rows: list[tuple[str, float, int]] = [  # name, cost of an image, digits
        ("core-hours (whole run)", hour / rate["core"], 0),
        ("… of these the model", hour / rate["model"], 0),
        ("days on 64 cores", day / rate["core"] / 64, 2),
        ("days on 10 000 cores", day / rate["core"] / 10_000, 2),
        ("pictures in, TB", rate["in"] / 1e12, 2),
        ("results out, TB", rate["out"] / 1e12, 2),
        ("files written (inodes)", 3, 0),
        ("results.json, all shards, GB", rate["bytes"] / 1e9, 1),
        ("listing in one process, hours", hour / rate["listing"], 2),
        ("memory of one process without --shard, GB", rate["memory"] / 1e9, 1),
    ]
    heading("pictures", *SCALES)
    for name, cost, digits in rows:
        row(name, *(f"{count * cost:,.{digits}f}" for count in SCALES.values()))
    print(f"\n10 000 cores read {1e4 * rate['core'] * rate['in'] / 1e9:.1f} GB a second and make "
          f"{3e4 * rate['core']:,.0f} files a second.")  # fmt: skip
