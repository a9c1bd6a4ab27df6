"""Ray: workers on one or many machines through Ray Data."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from incontext.batch.processes import cores
from incontext.batch.segment import Tell
from incontext.batch.targets import Target
from incontext.batch.worker import Job, Worker
from incontext.errors import InputError, first_line

STORE = 256 * 2**20  # bytes: the prompt and names of pictures go through it, no pixels
BLOCKS = 50  # parts of the work a worker, so that all end at about the same time
LARGEST = 1024  # pictures in one part


class RayWorker:
    """A worker as Ray Data calls it; the job comes once, through the object store."""

    def __init__(self, job: Any) -> None:
        import ray

        self.worker = Worker(ray.get(job))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Columns path and name, as bytes: names of files need not be text."""
        pairs = zip(batch["path"], batch["name"], strict=True)
        targets = [Target(Path(os.fsdecode(path)), os.fsdecode(name)) for path, name in pairs]
        problems = [os.fsencode(text) for text in self.worker(targets)]
        return {"path": batch["path"], "name": batch["name"], "problem": problems}


def run(job: Job, targets: Sequence[Target], workers: int | None, tell: Tell) -> None:
    """Segment targets on the cluster of RAY_ADDRESS, or on one of this machine.

    Raises:
        InputError: no Ray, or what ended its workers for good.
        OSError: results cannot be written.
    """
    if not targets:
        return
    with _cluster(workers) as ray:
        try:
            for batch in _answers(ray, job, targets, workers):
                columns = (map(os.fsdecode, batch[what]) for what in ("path", "name", "problem"))
                for path, name, problem in zip(*columns, strict=True):
                    tell(Target(Path(path), name), problem)
        except Exception as error:
            raise _cause(error) from error


def _answers(
    ray: Any, job: Job, targets: Sequence[Target], workers: int | None
) -> Iterator[dict[str, Any]]:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = 0 if job.device == "cpu" else sum(int(node.get("GPU", 0)) for node in nodes)
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    count = workers or gpus or max(1, sum(cpus))
    threads, needs = shares(count, cpus, gpus)
    size = job.options["batch_size"]
    rows = [{"path": os.fsencode(t.path), "name": os.fsencode(t.name)} for t in targets]
    part = min(LARGEST, max(size, len(rows) // (count * BLOCKS) // size * size))
    data = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // part))
    # Ray Data restarts actors that were killed, and does their tasks again, without end; a picture
    # that kills its worker is given up by the worker.
    done = data.map_batches(
        RayWorker, fn_constructor_args=(ray.put(job.but(threads=threads)),), batch_size=size,
        compute=ray.data.ActorPoolStrategy(size=count), **needs,
    )  # fmt: skip
    yield from done.iter_batches(batch_size=None, batch_format="numpy")


def shares(count: int, cpus: Sequence[int], gpus: int) -> tuple[int, dict[str, float]]:
    """Threads of each of so many workers, and what it asks of Ray, such that all have a place.

    Args:
        cpus: of each machine; a worker lies on one of them, however many they are together.
        gpus: of all machines.
    """
    fitting = (n for n in range(max(cpus, default=0), 0, -1) if sum(c // n for c in cpus) >= count)
    threads = next(fitting, 1)
    # Several workers may share a GPU: one reads pictures while another computes.
    return threads, {"num_gpus": 1 / -(-count // gpus)} if gpus else {"num_cpus": threads}


@contextmanager
def _cluster(workers: int | None) -> Iterator[Any]:
    """Ray with a cluster; nothing is reported to its makers, and there is no dashboard of ours."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError(
            "--engine ray needs Ray: pip install 'incontext-seg[ray]' (or --engine processes)"
        ) from None
    ours: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE,
                            "num_cpus": max(cores(), workers or 1)}  # fmt: skip
    there = os.environ.get("RAY_ADDRESS", "local") != "local"
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **({} if there else ours))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray cluster: {first_line(error)}") from None
    ray.data.DataContext.get_current().enable_progress_bars = False  # there is one already
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _cause(error: Exception) -> Exception:
    """What went wrong in a worker, out of what Ray and Ray Data wrap it in."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, (InputError, OSError)) and type(inner).__module__ != "ray.exceptions":
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return InputError(
        f"Ray gave up ({first_line(error)}); finished pictures are kept, and the same command "
        "goes on with the rest"
    )
