"""Showcase: what the page opens with, segmented once in a process, when the first visitor comes."""

import logging
from pathlib import Path
from threading import Event, Lock

from PIL import Image

from incontext import Example
from incontext.web.jobs import Jobs
from incontext.web.models import Models
from incontext.web.page import sample_data
from incontext.web.page.painting import Array, label_picture
from incontext.web.page.session import ImageResult

log = logging.getLogger("incontext.demo")


class Showcase:
    """A painted picture and the results of others, made with the default checkpoint."""

    name = "eye"  # of what is painted

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self.models, self.jobs = models, jobs
        self._lock, self._results = Lock(), list[ImageResult]()

    def draft(self) -> tuple[Image.Image, Array]:
        """Return the picture and the ids painted on it."""
        return sample_data.painted_cat()

    def targets(self) -> list[Path]:
        """Return the files of the pictures to segment."""
        return sample_data.cats()

    def results(self) -> list[ImageResult]:
        """Return the results, computed on the first call; none if the checkpoint fails.

        Visitors that come meanwhile wait for the same ones.
        """
        with self._lock:
            if not self._results:
                try:
                    self._results = self._segment()
                except Exception:  # the page is of use without them
                    log.exception("the page opens without results")
            return self._results

    def _segment(self) -> list[ImageResult]:
        with self.jobs.slot("quick", Event()):
            predictor = self.models.get()
            prompt = predictor.prompt(self._example(), names={1: self.name})
            folder = sample_data.folder("showcase")
            return [
                ImageResult.write(folder / path.stem, path.stem, path, result, number)
                for number, path in enumerate(self.targets(), 1)
                for result in [predictor.predict(path, prompt)]
            ]

    def _example(self) -> Example:
        picture, ids = self.draft()
        return Example(picture, label_picture(ids))

    def asked(self) -> tuple[str | None, list[Example], bool]:
        """Return what the results were made with, as `Session.asked` holds it."""
        return None, [self._example()], False
