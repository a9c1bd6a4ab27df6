"""Worker: one of several processes that segment side by side, here or on another machine."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from incontext.batch.journal import Journal, read_journal
from incontext.batch.records import journals
from incontext.batch.segment import write_results
from incontext.batch.targets import Target
from incontext.inference.predictor import DTYPES, Predictor
from incontext.inference.prompt import Prompt

TRIES = 3  # a picture at which a worker was killed so often is given up


@dataclass(frozen=True)
class Job:
    """All that a worker must know, wherever it runs; it can be pickled.

    Attributes:
        checkpoint: of `Predictor.from_pretrained`, a path absolute.
        folder, state: where results and journals go; every worker must see them.
        head: first line of every journal.
        options: of `write_results`.
        threads: of one worker.
    """

    checkpoint: str
    device: str
    dtype: str
    prompt: Prompt = field(repr=False)
    folder: Path
    state: Path
    head: dict[str, Any] = field(repr=False)
    options: dict[str, Any]
    threads: int = 1

    def but(self, **changes: Any) -> "Job":
        """The same with some changes."""
        return replace(self, **changes)


class Worker:
    """Has a predictor and a journal, takes targets.

    One that replaces a killed one finds in the journals what that finished. What it had begun is
    done again, each picture alone, so that one that kills its worker is known in the end.

    Raises:
        InputError: the checkpoint or the device cannot be used.
        OSError: the journal cannot be written.
    """

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        self.job = job
        self.predictor = Predictor.from_pretrained(
            job.checkpoint, device=job.device, dtype=DTYPES[job.dtype]
        )
        self.predictor.check_prompt(job.prompt)
        self.prompt = job.prompt.to(self.predictor.device)
        self.known: dict[str, str] = {}  # name → problem, of what was done before
        self.begun: dict[str, int] = {}
        for path in journals(job.state):
            record = read_journal(path)
            self.known |= {n: "" for n, text in record.entries.items() if text is not None}
            self.known |= {n: why for n, (_, why) in record.failed.items()}
            for name, times in record.begun.items():
                self.begun[name] = self.begun.get(name, 0) + times
        self.journal = Journal(job.state, job.head)

    def __call__(self, targets: Sequence[Target]) -> list[str]:
        """Segment these; for each "", or what went wrong.

        Raises:
            OSError: results cannot be written.
        """
        problems = {t.name: self.known[t.name] for t in targets if t.name in self.known}
        left = [target for target in targets if target.name not in problems]
        self._write([target for target in left if target.name not in self.begun], problems)
        for target in left:
            times = self.begun.get(target.name, 0)
            if times >= TRIES:
                text = f"{target.path}: the process that segmented it was killed {times} times"
                self.journal.fail(target, text)
                problems[target.name] = text
            elif times:
                self._write([target], problems)
        return [problems[target.name] for target in targets]

    def _write(self, targets: Sequence[Target], problems: dict[str, str]) -> None:
        write_results(
            self.predictor, self.prompt, targets, self.job.folder, self.journal,
            tell=lambda target, text: problems.update({target.name: text}), **self.job.options,
        )  # fmt: skip
