"""Tracking: one clip, labels on some of its frames, results in files; shared by page and API."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from PIL import Image

from incontext import (
    InputError,
    Predictor,
    Segmentation,
    VideoPredictor,
    open_frames,
    write_overlay,
)
from incontext.web.limits import FRAME_PIXELS, FRAMES
from incontext.web.page.painting import COLORS, label_picture, read_names
from incontext.web.page.session import keep, pack

Array = np.ndarray[Any, Any]


@dataclass
class Clip:
    """A video that is being worked on; files in `folder`.

    `given`: ids painted on frames; `warned`: why frames are worth a look.
    """

    path: Path
    folder: Path
    frames: Any = field(repr=False)
    count: int
    given: dict[int, Array] = field(default_factory=dict, repr=False)
    pending: set[int] = field(default_factory=set)  # painted since the frames were answered
    settings: tuple[Any, ...] = ()  # of the answers
    answered: set[int] = field(default_factory=set, repr=False)
    warned: dict[int, str] = field(default_factory=dict)
    shown: tuple[int, Array] | None = field(default=None, repr=False)  # as the editor got it
    colors: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path, folder: Path) -> "Clip":
        """Look at a video file.

        Raises:
            InputError: no video, too long or too large; the limit is named.
        """
        path = keep(Path(path), folder)
        frames = open_frames(path)
        announced = frames.total or 0
        if announced > FRAMES:
            raise InputError(f"{announced} frames; accepted here: {FRAMES}. Cut the clip.")
        if not announced:  # some files say it at their end only
            for announced, _ in frames.forward():
                if announced >= FRAMES:
                    raise InputError(f"more than {FRAMES} frames; cut the clip")
        first = frames.at(0)
        if first.width * first.height > FRAME_PIXELS:
            raise InputError(
                f"frames of {first.width}×{first.height}; accepted here: up to 1920×1080"
            )
        count = frames.last() + 1
        if count > FRAMES:
            raise InputError(f"{count} frames; accepted here: {FRAMES}. Cut the clip.")
        (folder / "masks").mkdir()
        return cls(path, folder, frames, count)

    def ids(self, index: int) -> Array:
        """What is known of a frame: painted, predicted, or nothing."""
        if index in self.given:
            return self.given[index]
        if index in self.answered:
            with Image.open(self._mask(index)) as image:
                return np.asarray(image)
        picture = self.frames.at(index)
        return np.zeros((picture.height, picture.width), np.uint8)

    def look(self, index: int) -> tuple[Image.Image, Array]:
        """A frame and what is known of it, to be painted on.

        Raises:
            InputError: there is no such frame.
        """
        picture, ids = self.frames.at(index), self.ids(index)
        if ids.max(initial=0) > len(COLORS):
            raise InputError(
                f"ids over {len(COLORS)}, which the prompt has, cannot be painted here"
            )
        self.shown = (index, ids)
        return picture, ids

    def paint(self, index: int, ids: Array) -> None:
        """Labels of a frame, if they differ from what was known."""
        if self.shown and self.shown[0] == index and np.array_equal(self.shown[1], ids):
            return
        if ids.any() or index in self.given or index in self.answered:
            self.given[index] = ids
            self.pending.add(index)

    def _to_do(self, settings: tuple[Any, ...]) -> list[tuple[int, str]]:
        """Where to start, and in which direction; what was answered and can stay is left out."""
        first = min(self.given, default=0)
        if settings != self.settings:
            self.answered = set()
        elif self.pending:
            corrected = min(self.pending)
            before = range(corrected) if corrected > first else ()
            self.answered &= set(before)
        if len(self.answered) == self.count:
            self.answered = set()
        self.settings, self.pending = settings, set()
        self.warned = {i: text for i, text in self.warned.items() if i in self.answered}
        ahead = [i for i in range(first, self.count) if i not in self.answered]
        behind = [i for i in range(first) if i not in self.answered]
        to_do = [(ahead[0], "forward")] if ahead else []
        return to_do + ([(behind[-1], "backward")] if behind else [])

    def follow(
        self, predictor: Predictor, stop: Event, *, kind: str = "instance", names: str = "",
        prompt: str | None = None,
    ) -> Iterator[tuple[int, Segmentation]]:  # fmt: skip
        """Answer frames: all of them, those from a corrected one on, or those that a stop left.

        Raises:
            InputError: nothing is painted and there is no prompt.
        """
        if not self.given and not prompt:
            raise InputError("Paint the objects on a frame first, then propagate.")
        ids = sorted({int(i) for given in self.given.values() for i in np.unique(given) if i})
        labels = {i: label_picture(given) for i, given in sorted(self.given.items())}
        # Ids that a prompt brings have names of their own.
        named = {} if prompt and not names else read_names(names, ids)
        video = VideoPredictor(predictor, kind=kind)
        for start, direction in self._to_do((predictor.name, kind, names, prompt)):
            track = video.track(
                self.frames, labels, prompt=prompt, names=named or None, start=start,
                direction=direction,
            )  # fmt: skip
            for index, result in track:
                self.colors = dict(result.colors)
                result.label_image().save(self._mask(index))
                self.answered.add(index)
                seen = track.seen.items()
                said = [f"{result.names[i]}: {s.warning}" for i, s in seen if s.warning]
                if said:
                    self.warned[index] = "; ".join(said)
                yield index, result
                if stop.is_set():
                    track.stop()
                    return

    def worth_a_look(self) -> dict[int, str]:
        """Of the frames with warnings those to look at, ten frames or more apart."""
        chosen: dict[int, str] = {}
        for index in sorted(self.warned):
            if not chosen or index - max(chosen) >= 10:
                chosen[index] = self.warned[index]
        return chosen

    def write(self) -> tuple[Path, Path]:
        """overlay.mp4, and masks.zip in DAVIS layout with worth_a_look.json."""
        colors = self.colors or dict(enumerate(COLORS.values(), 1))

        def labels(index: int) -> Array | None:
            return self.ids(index).astype(np.int32) if index in self.answered else None

        movie = write_overlay(self.folder / "overlay.mp4", self.frames, labels, colors)
        notes = self.folder / "worth_a_look.json"
        notes.write_text(json.dumps(self.worth_a_look(), indent=1))
        masks = [
            (self._mask(i), f"Annotations/{self.path.stem}/{i:05d}.png")
            for i in sorted(self.answered)
        ]
        return movie, pack(self.folder / "masks.zip", [*masks, (notes, notes.name)])

    def _mask(self, index: int) -> Path:
        return self.folder / "masks" / f"{index:05d}.png"
