"""Worker: one of several processes that segment side by side, here or on another machine."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from incontext.batch.inputs import InputImage
from incontext.batch.journal import Journal, read_journal
from incontext.batch.records import journals
from incontext.batch.segment import write_results
from incontext.inference.precision import DTYPES
from incontext.inference.predictor import Predictor
from incontext.inference.prompt import Prompt

MAX_ATTEMPTS = 3  # an image that killed its worker this often is given up


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

    def replace(self, **changes: Any) -> "Job":
        """Return the job with some attributes changed."""
        return replace(self, **changes)


class Worker:
    """A predictor with a journal that segments the images it is given.

    A worker that replaces a killed one finds in the journals what that finished. What it had begun
    is done again, each image by itself, so that one that kills its worker is known in the end.

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
        self.earlier_results: dict[str, str] = {}  # name → "" or error text
        self.attempts = Counter[str]()
        for path in journals(job.state):
            content = read_journal(path)
            finished_names = (n for n, text in content.records.items() if text is not None)
            self.earlier_results |= dict.fromkeys(finished_names, "")
            self.earlier_results |= {n: text for n, (_, text) in content.failures.items()}
            self.attempts += content.attempts
        self.journal = Journal(job.state, job.head)

    def __call__(self, images: Sequence[InputImage]) -> list[str]:
        """Segment images; return for each "", or what went wrong.

        Raises:
            OSError: results cannot be written.
        """
        names = [image.name for image in images if image.name in self.earlier_results]
        error_texts = {name: self.earlier_results[name] for name in names}
        unfinished = [image for image in images if image.name not in error_texts]
        self._write([i for i in unfinished if i.name not in self.attempts], error_texts)
        for image in unfinished:
            attempts = self.attempts[image.name]
            if attempts >= MAX_ATTEMPTS:
                text = f"{image.path}: the process that segmented it was killed {attempts} times"
                self.journal.fail(image, text)
                error_texts[image.name] = text
            elif attempts:
                self._write([image], error_texts)
        return [error_texts[image.name] for image in images]

    def _write(self, images: Sequence[InputImage], error_texts: dict[str, str]) -> None:
        write_results(
            self.predictor, self.prompt, images, self.job.folder, self.journal,
            on_result=lambda image, text: error_texts.update({image.name: text}),
            **self.job.options,
        )  # fmt: skip
