"""Processes, Ray and shards give what one process gives, byte for byte, whatever is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from incontext import Example, InputError, Predictor
from incontext.batch.inputs import find_images
from incontext.batch.manifest import Manifest, exclusive_run
from incontext.batch.processes import run
from incontext.batch.ray_engine import worker_resources
from incontext.batch.worker import MAX_ATTEMPTS, Job, Worker
from incontext.formats.results import read_results

COUNT = 12


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """in/ with pictures, one of them broken and one with a name that is no text; an example."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "in/deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        name = f"{'deep/' if number % 3 else ''}{number:02d}.png"
        pixels = rng.integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(root / "in" / name)
    (root / "in/broken.png").write_text("no picture")
    odd = os.fsdecode(os.fsencode(root / "in") + b"/\xff.png")
    (root / "in/00.png").rename(odd)
    Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(root / "e.png")
    Image.fromarray(np.eye(30, 40, dtype=np.uint8)).save(root / "m.png")
    return root


@pytest.fixture
def arguments(pictures, tiny_checkpoint) -> list[str]:
    pair = ["--example", str(pictures / "e.png"), str(pictures / "m.png")]
    return ["segment", str(pictures / "in"), *pair, "--checkpoint", str(tiny_checkpoint),
            "--batch-size", "2"]  # fmt: skip


@pytest.fixture
def plain(incontext, arguments, tmp_path) -> dict[str, bytes]:
    """What one process writes."""
    assert incontext(*arguments, "--out", tmp_path / "plain").code == 1
    return written(tmp_path / "plain")


def written(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def started(arguments: list[str], out: Path, *more: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "incontext", *arguments, "--out", str(out), *map(str, more)]
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_processes(incontext, arguments, plain, tmp_path):
    out = tmp_path / "out"
    answer = incontext(*arguments, "--out", out, "--engine", "processes", "--workers", 2)
    assert answer.code == 1
    assert "broken.png" in answer.err
    assert f"1 of {COUNT + 1} pictures failed" in answer.err
    assert written(out) == plain
    again = incontext(*arguments, "--out", out, "--engine", "processes", "--workers", 2)
    assert f"{COUNT} of {COUNT + 1} pictures are finished already" in again.out
    assert written(out) == plain


@pytest.mark.ray
@pytest.mark.slow
def test_ray(incontext, arguments, plain, tmp_path):
    pytest.importorskip("ray", reason="needs Ray (ray extra)")
    out = tmp_path / "out"
    answer = incontext(*arguments, "--out", out, "--engine", "ray", "--workers", 2)
    assert answer.code == 1
    assert f"1 of {COUNT + 1} pictures failed" in answer.err
    assert written(out) == plain


@pytest.mark.parametrize(
    ("count", "cpus", "threads"),
    [
        (2, [8, 8, 8], 8),
        (4, [8, 8, 8], 4),
        (5, [8, 8, 8], 4),
        (24, [8, 8, 8], 1),
        (3, [8, 2, 2], 2),
        (1, [0, 16], 16),
        (9, [2, 2], 1),
        (1, [], 1),
    ],
)
def test_all_workers_have_a_place_on_a_machine(count, cpus, threads):
    assert worker_resources(count, cpus, 0) == (threads, {"num_cpus": threads})


@pytest.mark.parametrize(("count", "share"), [(2, 1), (4, 1), (6, 1 / 2), (8, 1 / 2), (9, 1 / 3)])
def test_all_workers_have_a_place_on_a_gpu(count, share):
    assert worker_resources(count, [16, 16], 4)[1] == {"num_gpus": share}


@pytest.mark.slow
def test_shards_at_once_and_one_killed(incontext, arguments, plain, tmp_path):
    out = tmp_path / "out"
    jobs = [started(arguments, out, "--shard", f"{index}/2") for index in range(2)]
    while jobs[0].poll() is None and not list(out.glob(".run/0-of-2/*.jsonl")):
        time.sleep(0.01)
    jobs[0].send_signal(signal.SIGKILL)
    for job in jobs:
        job.communicate()
    assert jobs[0].returncode in (-signal.SIGKILL, 0, 1)  # it may have been quicker
    assert incontext(*arguments, "--out", out, "--shard", "0/2").code in (0, 1)
    parts = [json.loads((out / f"results.{i}-of-2.json").read_text()) for i in range(2)]
    names = [name for part in parts for name in part["results"]]
    assert sorted(names) == sorted(json.loads(plain["results.json"])["results"])
    assert len([path for part in parts for path in part["failed"]]) == 1
    assert [one.name for one in read_results(out)] == sorted(names)
    # Joined by a run without shards.
    assert incontext(*arguments, "--out", out).code == 1
    assert written(out) == plain


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint) -> Predictor:
    return Predictor.from_pretrained(tiny_checkpoint)


@pytest.fixture
def job(pictures, predictor, tiny_checkpoint, tmp_path) -> tuple[Job, Manifest]:
    prompt = predictor.prompt(Example(pictures / "e.png", pictures / "m.png"))
    manifest = Manifest.open(tmp_path / "out", {}, prompt, False)
    made = Job(
        str(tiny_checkpoint), "cpu", "float32", prompt, manifest.folder, manifest.state,
        manifest.head, {"batch_size": 4},
    )  # fmt: skip
    return made, manifest


def test_worker_in_place_of_a_killed_one(pictures, job, tmp_path):
    """What was finished is not done again; what kills its worker each time is given up."""
    made, manifest = job
    done, often, once, fresh, *_ = found = find_images([pictures / "in"], tmp_path)[2:]
    for number in range(MAX_ATTEMPTS):
        with manifest.open_journal() as journal:
            journal.begin([often] if number else [done, often, once])
            if not number:
                journal.finish(done, {"source": {"path": str(done.path)}})
    worker = Worker(made)
    problems = worker([done, often, once, fresh])
    assert [bool(text) for text in problems] == [False, True, False, False]
    assert f"killed {MAX_ATTEMPTS} times" in problems[1]
    worker.journal.file.close()
    out = tmp_path / "out"
    assert not (out / f"{done.name}.png").exists()
    assert not (out / f"{often.name}.png").exists()
    with manifest.collect_journals():
        pass
    assert set(manifest.results) == {done.name, once.name, fresh.name}
    assert list(manifest.failures) == [str(often.path)]
    assert len(found) > 4


@pytest.mark.slow
def test_process_that_is_killed(pictures, job, tmp_path):
    """Its pictures are done by the one in its place, and nobody's twice."""
    made, manifest = job
    found = find_images([pictures / "in"], tmp_path)
    told, killed = [], []

    def on_result(target, problem):
        told.append(target.name)
        if not killed:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            busy = [pid for pid in map(int, children) if _holds_journal(pid)]
            killed.append(busy[0])
            os.kill(busy[0], signal.SIGKILL)

    with manifest.collect_journals():
        run(made, found, 2, on_result)
    assert killed
    assert sorted(told) == sorted(target.name for target in found)
    assert len(manifest.results) == COUNT
    assert len(manifest.failures) == 1
    assert not [path for path in (tmp_path / "out").rglob(".*") if path.name.endswith(".part")]


def _holds_journal(pid: int) -> bool:
    files = Path(f"/proc/{pid}/fd").iterdir()
    return any(str(file.readlink()).endswith(".jsonl") for file in files)


@pytest.mark.slow
def test_worker_that_cannot_start(pictures, job, tmp_path):
    made, manifest = job
    found = find_images([pictures / "in"], tmp_path)
    with pytest.raises(InputError, match="no checkpoint 'nobody'"):
        run(made.replace(checkpoint="nobody"), found, 1, lambda *_: None)
    assert not manifest.results


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--shard", "2/2"], "accepted: I/N with 0 ≤ I < N"),
        (["--engine", "spark"], "accepted: local, processes, ray"),
        (["--workers", "2"], "--workers goes with --engine processes or ray"),
        (["--engine", "ray", "--workers", "0"], "--workers is 0; accepted"),
    ],
)
def test_refused(incontext, arguments, tmp_path, options, wanted):
    answer = incontext(*arguments, "--out", tmp_path / "out", *options)
    assert answer.code == 2
    assert wanted in answer.err
    assert not (tmp_path / "out").exists()


def test_one_run_at_a_time(incontext, arguments, tmp_path):
    with exclusive_run(tmp_path / "out"):
        answer = incontext(*arguments, "--out", tmp_path / "out", "--shard", "0/2")
    assert answer.code == 2
    assert "another run (0-of-1 of all pictures) is using" in answer.err
