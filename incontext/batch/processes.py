"""Processes: workers of this machine, replaced when they are killed."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from incontext.batch.inputs import InputImage
from incontext.batch.segment import OnResult
from incontext.batch.worker import Job, Worker
from incontext.errors import InputError

MAX_FALSE_STARTS = 3  # deaths of a worker before it is ready: the next one would die as well


def core_count() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(job: Job, images: Sequence[InputImage], workers: int | None, on_result: OnResult) -> None:
    """Segment images with several processes; by default one for each GPU, or for each core.

    Raises:
        InputError, OSError, RuntimeError: of a worker; the others are stopped.
    """
    gpus = torch.cuda.device_count() if job.device in ("auto", "cuda") else 0
    count = min(workers or gpus or core_count(), len(images))
    job = job.replace(threads=max(1, core_count() // max(1, count)))
    remaining = iter(images)
    chunks = iter(lambda: list(islice(remaining, job.options["batch_size"])), [])
    processes = [
        _WorkerProcess(job.replace(device=f"cuda:{number % gpus}") if gpus else job)
        for number in range(count)
    ]
    try:
        _distribute(processes, chunks, on_result)
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    finally:
        for process in processes:
            process.end()


def _distribute(
    processes: "Sequence[_WorkerProcess]", chunks: Iterator[list[InputImage]], on_result: OnResult
) -> None:
    """Give each worker a chunk, and the next one when it is done, until all chunks are done."""
    busy: dict[Any, _WorkerProcess] = {process.pipe: process for process in processes}
    while busy:
        for pipe in wait(list(busy)):
            process = busy.pop(pipe)
            error_texts = process.receive()
            if error_texts is not None:  # None: it was replaced
                for image, error_text in zip(process.chunk, error_texts, strict=True):
                    on_result(image, error_text)
                process.chunk = next(chunks, [])
                if not process.chunk:
                    continue
                process.send()
            busy[process.pipe] = process


class _WorkerProcess:
    """A process with a worker in it, and its chunk.

    What it sends first is that it is ready: an empty list.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.chunk, self.false_starts = job, list[InputImage](), 0
        self.start()

    def start(self) -> None:
        # Spawned, not forked: forks of a process that has threads or a GPU open may hang.
        context = multiprocessing.get_context("spawn")
        self.pipe, worker_pipe = context.Pipe()
        self.process = context.Process(target=_work, args=(self.job, worker_pipe), daemon=True)
        self.process.start()
        worker_pipe.close()  # so that its death ends the pipe
        self.ready = False

    def send(self) -> None:
        with suppress(OSError):  # it died meanwhile, which the next `receive` shows
            self.pipe.send(self.chunk)

    def receive(self) -> list[str] | None:
        """Return the error texts of the chunk; None if the process was killed and is replaced."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.replace()
            return None
        if isinstance(answer, BaseException):
            raise answer
        if not self.ready:
            self.ready, self.false_starts = True, 0
            if self.chunk:  # of the process before it
                self.send()
                return None
        return answer

    def replace(self) -> None:
        self.false_starts += not self.ready
        if self.false_starts >= MAX_FALSE_STARTS:
            raise InputError(
                f"a worker was killed {MAX_FALSE_STARTS} times while it started, the last time "
                f"with exit code {self.process.exitcode}: is there memory for so many --workers?"
            )
        self.end()
        self.start()

    def terminate(self) -> None:
        self.process.terminate()

    def end(self) -> None:
        self.pipe.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _work(job: Job, pipe: Connection) -> None:
    """Segment chunks until the pipe ends: what a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process stops the others
    signal.signal(signal.SIGTERM, _exit)
    try:
        worker = Worker(job)
        pipe.send([])
        while True:
            pipe.send(worker(pipe.recv()))
    except (EOFError, ConnectionError):
        return
    except Exception as error:
        pipe.send(error)


def _exit(*_: Any) -> None:
    raise SystemExit  # so that no draft stays
