"""Kill: a run on Ray that is killed twice, and checks that its results are complete."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from benchmarks.blobs import write_blobs

SIZE = (96, 64)
BROKEN_FILES = 3  # files that are not images
PATIENCE = 1800.0  # seconds for a part of the run


def main(pictures: int, sample: int) -> int:
    """Print a report; return 0 if all checks hold."""
    with tempfile.TemporaryDirectory(prefix="incontext-kill-") as space:
        root = Path(space)
        write_blobs(root / "in", pictures, SIZE, ".png")
        for number in range(BROKEN_FILES):
            (root / f"in/broken{number}.png").write_text("no picture")
        command = [*_segment(root, "out"), "--engine", "ray", "--workers", "2", str(root / "in")]
        print(f"{pictures} pictures of {SIZE[0]}×{SIZE[1]} and {BROKEN_FILES} files that are none; "
              "Ray with 2 workers")  # fmt: skip
        _first_run(command, root / "out", pictures)
        text = _second_run(command)
        return _report(root, pictures, sample, text)


def _segment(root: Path, out: str) -> list[str]:
    pair = [str(root / "example.png"), str(root / "mask.png")]
    head = [sys.executable, "-m", "incontext", "segment", "--example", *pair]
    return [*head, "--out", str(root / out)]


def _first_run(command: list[str], out: Path, pictures: int) -> None:
    """Kill a worker at a quarter of the images, all processes at half."""
    quiet = subprocess.DEVNULL
    start = time.monotonic()
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True) as driver:
        try:
            _wait_for(lambda: _done_count(out) >= pictures // 4, driver, "a quarter")
            before = _workers(driver.pid)
            os.kill(before[0], signal.SIGKILL)
            print(f"{_done_count(out)} done after {time.monotonic() - start:.0f} s: SIGKILL to one "
                  f"of {len(before)} workers")  # fmt: skip
            _wait_for(lambda: _done_count(out) >= pictures // 2, driver, "half")
            after = _workers(driver.pid)
            print(f"{_done_count(out)} done after {time.monotonic() - start:.0f} s, "
                  f"{len(set(after) - set(before))} of {len(after)} workers is new: SIGKILL to the "
                  "driver and everything it started")  # fmt: skip
        finally:
            _kill_all(driver.pid)


def _second_run(command: list[str]) -> str:
    start = time.monotonic()
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    first = (process.stdout.splitlines() or ["nothing"])[0]
    print(f"the same command again: exit code {process.returncode} (1: some files are no pictures) "
          f"after {time.monotonic() - start:.0f} s; it says: {first}")  # fmt: skip
    return f"{process.returncode} {process.stdout}{process.stderr}"


def _report(root: Path, pictures: int, sample: int, text: str) -> int:
    """Check the results and print what holds; `text` is what the second run returned."""
    out, names = root / "out", [f"{number:05d}" for number in range(pictures)]
    raw = (out / "results.json").read_text(encoding="utf-8")
    manifest = json.loads(raw)
    entries = [
        json.loads(line.split(":")[0]) for line in raw.splitlines() if '": {"source"' in line
    ]
    sample_names = names[:: max(1, pictures // sample)][:sample]
    plain = [str(root / f"in/{name}.png") for name in sample_names]
    subprocess.run([*_segment(root, "plain"), *plain], check=True, capture_output=True)
    suffixes = (".png", ".confidence.png", ".overlay.jpg")
    files = [name + suffix for name in names for suffix in suffixes]
    sample_files = [name + suffix for name in sample_names for suffix in suffixes]
    different = [
        f for f in sample_files if (out / f).read_bytes() != (root / "plain" / f).read_bytes()
    ]
    expected_files = {*files, "results.json"}
    stray = {str(p.relative_to(out)) for p in out.rglob("*")} - expected_files
    missing = [f for f in files if not (out / f).is_file()]
    checks = {
        "the second run ended": text.startswith("1 "),
        f"one entry each: {len(entries)}": sorted(entries) == names == sorted(manifest["results"]),
        f"failed: {len(manifest['failed'])}": len(manifest["failed"]) == BROKEN_FILES,
        f"readable: {len(files) - len(missing)} files": not missing
        and all(map(_readable, _images(out))),
        f"equal to a plain run: {len(sample_files) - len(different)} of {len(sample_files)} files "
        f"of {len(sample_names)} pictures": not different,
        f"stray files and drafts: {len(stray)}": not stray,
    }
    for name, passes in checks.items():
        print(f"{'ok ' if passes else 'BAD'} {name}")
    print(f"SHA-256 of all {len(files)} files: {_hash([out / f for f in files])[:16]}")
    if not all(checks.values()):
        print(text[-2000:], *sorted(stray)[:5], *different[:5], sep="\n")
    return int(not all(checks.values()))


def _images(out: Path) -> Iterator[Path]:
    return (path for path in out.iterdir() if path.suffix in (".png", ".jpg"))


def _readable(path: Path) -> bool:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        return image.size == SIZE


def _hash(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _done_count(out: Path) -> int:
    """Count the images that the journals call done."""
    return sum(path.read_bytes().count(b'{"done"') for path in out.glob(".run/*/*.jsonl"))


def _wait_for(condition: Callable[[], bool], driver: "subprocess.Popen[bytes]", stage: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if driver.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the run did not come to {stage}: exit code {driver.returncode}")
        time.sleep(0.1)


def _descendants(pid: int) -> list[int]:
    """List the processes that a process started, and those that they started."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process has ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    pids = [pid]
    for ancestor in pids:  # which grows
        pids += [child for child, parent in parents.items() if parent == ancestor]
    return pids[1:]


def _workers(pid: int) -> list[int]:
    """List Ray's workers that segment."""
    workers = []
    for process in _descendants(pid):
        with suppress(OSError):
            if b"RayWorker" in Path(f"/proc/{process}/cmdline").read_bytes():
                workers.append(process)
    return workers


def _kill_all(pid: int) -> None:
    for process in [pid, *_descendants(pid)]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
