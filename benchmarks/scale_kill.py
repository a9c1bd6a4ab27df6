"""Kill: a run on Ray that is killed twice, and what it has to show for it in the end."""

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
BROKEN = 3  # files that are no pictures
PATIENCE = 1800.0  # seconds for a part of the run


def main(pictures: int, sample: int) -> int:
    """Print a report; 0 where all is as it should be."""
    with tempfile.TemporaryDirectory(prefix="incontext-kill-") as space:
        root = Path(space)
        write_blobs(root / "in", pictures, SIZE, ".png")
        for number in range(BROKEN):
            (root / f"in/broken{number}.png").write_text("no picture")
        command = [*_segment(root, "out"), "--engine", "ray", "--workers", "2", str(root / "in")]
        print(f"{pictures} pictures of {SIZE[0]}×{SIZE[1]} and {BROKEN} files that are none; Ray "
              "with 2 workers")  # fmt: skip
        _first_run(command, root / "out", pictures)
        text = _second_run(command)
        return _report(root, pictures, sample, text)


def _segment(root: Path, out: str) -> list[str]:
    pair = [str(root / "example.png"), str(root / "mask.png")]
    head = [sys.executable, "-m", "incontext", "segment", "--example", *pair]
    return [*head, "--out", str(root / out)]


def _first_run(command: list[str], out: Path, pictures: int) -> None:
    """Kill a worker at a quarter, all at half."""
    quiet = subprocess.DEVNULL
    start = time.monotonic()
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True) as driver:
        try:
            _until(lambda: _lines(out) >= pictures // 4, driver, "a quarter")
            before = _workers(driver.pid)
            os.kill(before[0], signal.SIGKILL)
            print(f"{_lines(out)} done after {time.monotonic() - start:.0f} s: SIGKILL to one of "
                  f"{len(before)} workers")  # fmt: skip
            _until(lambda: _lines(out) >= pictures // 2, driver, "half")
            after = _workers(driver.pid)
            print(f"{_lines(out)} done after {time.monotonic() - start:.0f} s, "
                  f"{len(set(after) - set(before))} of {len(after)} workers is new: SIGKILL to the "
                  "driver and everything it started")  # fmt: skip
        finally:
            _kill_all(driver.pid)


def _second_run(command: list[str]) -> str:
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    first = (done.stdout.splitlines() or ["nothing"])[0]
    print(f"the same command again: exit code {done.returncode} (1: some files are no pictures) "
          f"after {time.monotonic() - start:.0f} s; it says: {first}")  # fmt: skip
    return f"{done.returncode} {done.stdout}{done.stderr}"


def _report(root: Path, pictures: int, sample: int, text: str) -> int:
    out, names = root / "out", [f"{number:05d}" for number in range(pictures)]
    raw = (out / "results.json").read_text(encoding="utf-8")
    said = json.loads(raw)
    entries = [
        json.loads(line.split(":")[0]) for line in raw.splitlines() if '": {"source"' in line
    ]
    chosen = names[:: max(1, pictures // sample)][:sample]
    plain = [str(root / f"in/{name}.png") for name in chosen]
    subprocess.run([*_segment(root, "plain"), *plain], check=True, capture_output=True)
    suffixes = (".png", ".confidence.png", ".overlay.jpg")
    files = [name + suffix for name in names for suffix in suffixes]
    compared = [name + suffix for name in chosen for suffix in suffixes]
    different = [f for f in compared if (out / f).read_bytes() != (root / "plain" / f).read_bytes()]
    expected = {*files, "results.json"}
    stray = {str(p.relative_to(out)) for p in out.rglob("*")} - expected
    lost = [f for f in files if not (out / f).is_file()]
    checks = {
        "the second run ended": text.startswith("1 "),
        f"one entry each: {len(entries)}": sorted(entries) == names == sorted(said["results"]),
        f"failed: {len(said['failed'])}": len(said["failed"]) == BROKEN,
        f"readable: {len(files) - len(lost)} files": not lost and all(map(_readable, _all(out))),
        f"equal to a plain run: {len(compared) - len(different)} of {len(compared)} files of "
        f"{len(chosen)} pictures": not different,
        f"stray files and drafts: {len(stray)}": not stray,
    }
    for what, good in checks.items():
        print(f"{'ok ' if good else 'BAD'} {what}")
    print(f"SHA-256 of all {len(files)} files: {_hash([out / f for f in files])[:16]}")
    if not all(checks.values()):
        print(text[-2000:], *sorted(stray)[:5], *different[:5], sep="\n")
    return int(not all(checks.values()))


def _all(out: Path) -> Iterator[Path]:
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


def _lines(out: Path) -> int:
    """Pictures that the journals call done."""
    return sum(path.read_bytes().count(b'{"done"') for path in out.glob(".run/*/*.jsonl"))


def _until(there: Callable[[], bool], driver: "subprocess.Popen[bytes]", what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not there():
        if driver.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the run did not come to {what}: exit code {driver.returncode}")
        time.sleep(0.1)


def _below(pid: int) -> list[int]:
    """Processes that this one started, and theirs."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _workers(pid: int) -> list[int]:
    """Of Ray, those that segment."""
    several = []
    for one in _below(pid):
        with suppress(OSError):
            if b"RayWorker" in Path(f"/proc/{one}/cmdline").read_bytes():
                several.append(one)
    return several


def _kill_all(pid: int) -> None:
    for one in [pid, *_below(pid)]:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
