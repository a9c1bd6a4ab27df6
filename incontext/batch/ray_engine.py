"""Ray: workers on one or many machines through Ray Data."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from incontext.batch.inputs import InputImage
from incontext.batch.processes import core_count
from incontext.batch.segment import OnResult
from incontext.batch.worker import Job, Worker
from incontext.errors import InputError, first_line

STORE = 256 * 2**20  # bytes: the prompt and names of images go through it, no pixels
BLOCKS = 50  # parts of the work for each worker, so that all end at about the same time
MAX_BLOCK_IMAGES = 1024


class RayWorker:
    """A worker as Ray Data calls it; the job comes once, through the object store."""

    def __init__(self, job: Any) -> None:
        import ray

        self.worker = Worker(ray.get(job))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Segment rows; columns path and name are bytes: names of files need not be text."""
        pairs = zip(batch["path"], batch["name"], strict=True)
        images = [InputImage(Path(os.fsdecode(path)), os.fsdecode(name)) for path, name in pairs]
        error_texts = [os.fsencode(text) for text in self.worker(images)]
        return {"path": batch["path"], "name": batch["name"], "error_text": error_texts}


def run(job: Job, images: Sequence[InputImage], workers: int | None, on_result: OnResult) -> None:
    """Segment images on the cluster of RAY_ADDRESS, or on one of this machine.

    Raises:
        InputError: no Ray, or what ended its workers for good.
        OSError: results cannot be written.
    """
    if not images:
        return
    with _cluster(workers) as ray:
        try:
            for batch in _results(ray, job, images, workers):
                columns = (map(os.fsdecode, batch[c]) for c in ("path", "name", "error_text"))
                for path, name, error_text in zip(*columns, strict=True):
                    on_result(InputImage(Path(path), name), error_text)
        except Exception as error:
            raise _cause(error) from error


def _results(
    ray: Any, job: Job, images: Sequence[InputImage], workers: int | None
) -> Iterator[dict[str, Any]]:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = 0 if job.device == "cpu" else sum(int(node.get("GPU", 0)) for node in nodes)
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    count = workers or gpus or max(1, sum(cpus))
    threads, resources = worker_resources(count, cpus, gpus)
    size = job.options["batch_size"]
    rows = [{"path": os.fsencode(i.path), "name": os.fsencode(i.name)} for i in images]
    block = min(MAX_BLOCK_IMAGES, max(size, len(rows) // (count * BLOCKS) // size * size))
    data = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // block))
    # Ray Data restarts actors that were killed, and does their tasks again, without end; an image
    # that kills its worker is given up by the worker.
    results = data.map_batches(
        RayWorker, fn_constructor_args=(ray.put(job.replace(threads=threads)),), batch_size=size,
        compute=ray.data.ActorPoolStrategy(size=count), **resources,
    )  # fmt: skip
    yield from results.iter_batches(batch_size=None, batch_format="numpy")


def worker_resources(count: int, cpus: Sequence[int], gpus: int) -> tuple[int, dict[str, float]]:
    """Return threads and Ray resources of each of `count` workers, such that all have a place.

    Args:
        cpus: of each machine; a worker lies on one of them, however many they are together.
        gpus: of all machines.
    """
    thread_counts = range(max(cpus, default=0), 0, -1)
    threads = next((n for n in thread_counts if sum(c // n for c in cpus) >= count), 1)
    # Several workers may share a GPU: one reads images while another computes.
    return threads, {"num_gpus": 1 / -(-count // gpus)} if gpus else {"num_cpus": threads}


@contextmanager
def _cluster(workers: int | None) -> Iterator[Any]:
    """Yield Ray with a cluster, without usage reports to its makers and without a dashboard."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError(
            "--engine ray needs Ray: pip install 'incontext-seg[ray]' (or --engine processes)"
        ) from None
    own_cluster: dict[str, Any] = {
        "include_dashboard": False, "object_store_memory": STORE,
        "num_cpus": max(core_count(), workers or 1),
    }  # fmt: skip
    remote = os.environ.get("RAY_ADDRESS", "local") != "local"
    options = {} if remote else own_cluster
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray cluster: {first_line(error)}") from None
    ray.data.DataContext.get_current().enable_progress_bars = False  # the caller has its own
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _cause(error: Exception) -> Exception:
    """Return what went wrong in a worker, out of what Ray and Ray Data wrap it in."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, (InputError, OSError)) and type(inner).__module__ != "ray.exceptions":
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return InputError(
        f"Ray gave up ({first_line(error)}); finished pictures are kept, and the same command "
        "goes on with the rest"
    )
