"""The command line as a process of its own, where exit codes and streams are real."""

import os
import platform
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.helpers import mask, photo, results


def run_process(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
    process = subprocess.run(
        [sys.executable, "-m", "incontext", *map(str, args)], capture_output=True, text=True,
        check=False, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        **options,
    )  # fmt: skip
    assert "Traceback" not in process.stdout + process.stderr
    return process


def segment_arguments(tmp_path: Path, checkpoint: Path) -> list[object]:
    return [
        "segment", tmp_path / "in", "--checkpoint", checkpoint, "--out", tmp_path / "out",
        "--example", photo(tmp_path / "e.png"), mask(tmp_path / "l.png"),
    ]  # fmt: skip


@pytest.mark.slow
def test_bad_file_among_good_ones(tiny_checkpoint, tmp_path):
    photo(tmp_path / "in/good.png")
    (tmp_path / "in/bad.png").write_text("no picture")
    # a name that is no text, and a console that knows ASCII only
    photo(tmp_path / "in/x.gif").rename(os.fsdecode(os.fsencode(tmp_path / "in/") + b"/\xff.gif"))
    process = run_process(*segment_arguments(tmp_path, tiny_checkpoint))
    assert process.returncode == 1
    assert "1 of 3 pictures failed" in process.stderr
    assert "id 1 (1, #0080ff): in " in process.stdout


@pytest.mark.slow
def test_full_disk(tiny_checkpoint, tmp_path, incontext):
    photo(tmp_path / "in/a.png", (600, 600))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    process = run_process(*segment_arguments(tmp_path, tiny_checkpoint), preexec_fn=limit)
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1].startswith("Error: ")
    assert "File too large" in process.stderr
    assert not list((tmp_path / "out").glob(".*.part"))
    # with room again, the run goes on
    assert incontext(*segment_arguments(tmp_path, tiny_checkpoint)).code == 0


@pytest.mark.slow
def test_interrupted(tiny_checkpoint, tmp_path, incontext):
    for index in range(80):
        photo(tmp_path / f"in/{index}.png")
    arguments = [*segment_arguments(tmp_path, tiny_checkpoint), "--batch-size", 1]
    with subprocess.Popen(
        [sys.executable, "-m", "incontext", *map(str, arguments)], stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        # Shells and test runners in the background hand on that it be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:  # fmt: skip
        while process.poll() is None and not list((tmp_path / "out").glob("*.overlay.jpg")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        errors = process.communicate()[1]
    assert process.returncode == 130
    assert "interrupted; finished files are kept" in errors
    assert "Traceback" not in errors
    finished_count = len(results(tmp_path / "out")["results"])
    assert finished_count < 80
    answer = incontext(*arguments)
    assert answer.code == 0
    assert not finished_count or f"{finished_count} of 80 pictures are finished" in answer.out


def test_bad_option():
    process = run_process("segment", "--speed", "9")
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1].startswith("Error: No such option: --speed")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_freed_memory_is_reused(tmp_path):
    """Tables that come and go take no fresh pages, in the process and in its children."""
    program = """
import os, resource, subprocess, sys
from incontext.cli.common import reuse_freed_memory

def fresh_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        tables = [b"x" * 24_000_000 for _ in range(4)]
        del tables
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1:] == []:
    print(fresh_pages(), flush=True)
    reuse_freed_memory()
fresh_pages()
print(fresh_pages(), flush=True)
if sys.argv[1:] == []:
    subprocess.run([sys.executable, sys.argv[0], "child"], check=True)
"""
    file = tmp_path / "tables.py"
    file.write_text(program)
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
        | {"PYTHONPATH": str(root)},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    before, after, in_child = map(int, answer.stdout.split())
    assert before > 100_000  # each table has nearly 6000 pages
    assert after < 1000
    assert in_child < 1000
