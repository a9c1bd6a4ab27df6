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

from incontext.batch.segment import Tell
from incontext.batch.targets import Target
from incontext.batch.worker import Job, Worker
from incontext.errors import InputError

FALSE_STARTS = 3  # so many deaths before a worker is ready: the next one would die as well


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(job: Job, targets: Sequence[Target], workers: int | None, tell: Tell) -> None:
    """Segment targets with so many processes; by default one for each GPU, or for each core.

    Raises:
        InputError, OSError, RuntimeError: of a worker; the others are stopped.
    """
    gpus = torch.cuda.device_count() if job.device in ("auto", "cuda") else 0
    count = min(workers or gpus or cores(), len(targets))
    job = job.but(threads=max(1, cores() // max(1, count)))
    rest = iter(targets)
    chunks = iter(lambda: list(islice(rest, job.options["batch_size"])), [])
    several = [
        _Process(job.but(device=f"cuda:{number % gpus}") if gpus else job)
        for number in range(count)
    ]
    try:
        _share_out(several, chunks, tell)
    except BaseException:
        for one in several:
            one.process.terminate()
        raise
    finally:
        for one in several:
            one.end()


def _share_out(several: "Sequence[_Process]", chunks: Iterator[list[Target]], tell: Tell) -> None:
    """To each worker a chunk, and the next when it is answered; until all are."""
    busy: dict[Any, _Process] = {one.pipe: one for one in several}
    while busy:
        for pipe in wait(list(busy)):
            one = busy.pop(pipe)
            problems = one.answer()
            if problems is not None:  # None: it was replaced
                for target, problem in zip(one.chunk, problems, strict=True):
                    tell(target, problem)
                one.chunk = next(chunks, [])
                if not one.chunk:
                    continue
                one.ask()
            busy[one.pipe] = one


class _Process:
    """A process with a worker in it, and the chunk it is at; its first answer is to no chunk."""

    def __init__(self, job: Job) -> None:
        self.job, self.chunk, self.false_starts = job, list[Target](), 0
        self.start()

    def start(self) -> None:
        # Spawned, not forked: forks of a process that has threads or a GPU open may hang.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(self.job, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that its death ends the pipe
        self.ready = False

    def ask(self) -> None:
        with suppress(OSError):  # it died meanwhile, which the next answer shows
            self.pipe.send(self.chunk)

    def answer(self) -> list[str] | None:
        """Problems of the chunk; None where the process had been killed, and is now another."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.replace()
            return None
        if isinstance(answer, BaseException):
            raise answer
        if not self.ready:
            self.ready, self.false_starts = True, 0
            if self.chunk:  # of the one before it
                self.ask()
                return None
        return answer

    def replace(self) -> None:
        self.false_starts += not self.ready
        if self.false_starts >= FALSE_STARTS:
            raise InputError(
                f"a worker was killed {FALSE_STARTS} times while it started, the last time with "
                f"exit code {self.process.exitcode}: is there memory for so many --workers?"
            )
        self.end()
        self.start()

    def end(self) -> None:
        self.pipe.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _work(job: Job, pipe: Connection) -> None:
    """What a process does until its pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process stops the others
    signal.signal(signal.SIGTERM, _stop)
    try:
        worker = Worker(job)
        pipe.send([])
        while True:
            pipe.send(worker(pipe.recv()))
    except (EOFError, ConnectionError):
        return
    except Exception as error:
        pipe.send(error)


def _stop(*_: Any) -> None:
    raise SystemExit  # so that no draft stays
