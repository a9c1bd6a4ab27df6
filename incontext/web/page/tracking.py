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
from incontext.web.limits import MAX_FRAME_PIXELS, MAX_FRAMES
from incontext.web.page.painting import COLORS, label_picture, parse_brush_names
from incontext.web.page.session import keep, pack

Array = np.ndarray[Any, Any]


@dataclass
class Clip:
    """A video that is being worked on; files in `folder`.

    Attributes:
        painted: ids painted on frames.
        pending: frames painted since they were segmented.
        settings: those that the segmented frames were made with.
        result_frames: frames that are segmented.
        warnings: why frames should be reviewed.
        editor_frame: the frame in the editor, with the ids that it was given.
    """

    path: Path
    folder: Path
    frames: Any = field(repr=False)
    count: int
    painted: dict[int, Array] = field(default_factory=dict, repr=False)
    pending: set[int] = field(default_factory=set)
    settings: tuple[Any, ...] = ()
    result_frames: set[int] = field(default_factory=set, repr=False)
    warnings: dict[int, str] = field(default_factory=dict)
    editor_frame: tuple[int, Array] | None = field(default=None, repr=False)
    colors: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path, folder: Path) -> "Clip":
        """Open a video file.

        Raises:
            InputError: not a video, too long or too large; the limit is named.
        """
        path = keep(Path(path), folder)
        frames = open_frames(path)
        announced = frames.total or 0
        if announced > MAX_FRAMES:
            raise InputError(f"{announced} frames; accepted here: {MAX_FRAMES}. Cut the clip.")
        if not announced:  # some files give their length at the end only
            for announced, _ in frames.forward():
                if announced >= MAX_FRAMES:
                    raise InputError(f"more than {MAX_FRAMES} frames; cut the clip")
        first = frames.at(0)
        if first.width * first.height > MAX_FRAME_PIXELS:
            raise InputError(
                f"frames of {first.width}×{first.height}; accepted here: up to 1920×1080"
            )
        count = frames.last() + 1
        if count > MAX_FRAMES:
            raise InputError(f"{count} frames; accepted here: {MAX_FRAMES}. Cut the clip.")
        (folder / "masks").mkdir()
        return cls(path, folder, frames, count)

    def ids(self, index: int) -> Array:
        """Return the ids of a frame: painted, predicted, or all background."""
        if index in self.painted:
            return self.painted[index]
        if index in self.result_frames:
            with Image.open(self._mask(index)) as image:
                return np.asarray(image)
        picture = self.frames.at(index)
        return np.zeros((picture.height, picture.width), np.uint8)

    def show(self, index: int) -> tuple[Image.Image, Array]:
        """Return a frame and its ids, to be painted on.

        Raises:
            InputError: there is no such frame.
        """
        picture, ids = self.frames.at(index), self.ids(index)
        if ids.max(initial=0) > len(COLORS):
            raise InputError(
                f"ids over {len(COLORS)}, which the prompt has, cannot be painted here"
            )
        self.editor_frame = (index, ids)
        return picture, ids

    def paint(self, index: int, ids: Array) -> None:
        """Set the ids of a frame, if they differ from those that the editor was given."""
        if (
            self.editor_frame
            and self.editor_frame[0] == index
            and np.array_equal(self.editor_frame[1], ids)
        ):
            return
        if ids.any() or index in self.painted or index in self.result_frames:
            self.painted[index] = ids
            self.pending.add(index)

    def _plan(self, settings: tuple[Any, ...]) -> list[tuple[int, str]]:
        """Return where to start and in which direction, without the frames whose results stay."""
        first = min(self.painted, default=0)
        if settings != self.settings:
            self.result_frames = set()
        elif self.pending:
            corrected = min(self.pending)
            before = range(corrected) if corrected > first else ()
            self.result_frames &= set(before)
        if len(self.result_frames) == self.count:
            self.result_frames = set()
        self.settings, self.pending = settings, set()
        self.warnings = {i: text for i, text in self.warnings.items() if i in self.result_frames}
        ahead = [i for i in range(first, self.count) if i not in self.result_frames]
        behind = [i for i in range(first) if i not in self.result_frames]
        passes = [(ahead[0], "forward")] if ahead else []
        return passes + ([(behind[-1], "backward")] if behind else [])

    def follow(
        self, predictor: Predictor, stop: Event, *, kind: str = "instance", names: str = "",
        prompt: str | None = None,
    ) -> Iterator[tuple[int, Segmentation]]:  # fmt: skip
        """Segment frames: all of them, those from a corrected one on, or those that a stop left.

        Raises:
            InputError: nothing is painted and there is no prompt.
        """
        if not self.painted and not prompt:
            raise InputError("Paint the objects on a frame first, then propagate.")
        present = {int(i) for ids in self.painted.values() for i in np.unique(ids) if i}
        labels = {frame: label_picture(ids) for frame, ids in sorted(self.painted.items())}
        # Ids that a prompt brings have names of their own.
        id_names = {} if prompt and not names else parse_brush_names(names, sorted(present))
        video = VideoPredictor(predictor, kind=kind)
        for start, direction in self._plan((predictor.name, kind, names, prompt)):
            track = video.track(
                self.frames, labels, prompt=prompt, names=id_names or None, start=start,
                direction=direction,
            )  # fmt: skip
            for index, result in track:
                self.colors = dict(result.colors)
                result.label_image().save(self._mask(index))
                self.result_frames.add(index)
                stats = track.object_stats.items()
                reasons = [f"{result.names[i]}: {s.warning}" for i, s in stats if s.warning]
                if reasons:
                    self.warnings[index] = "; ".join(reasons)
                yield index, result
                if stop.is_set():
                    track.stop()
                    return

    def frames_to_review(self) -> dict[int, str]:
        """Return frames with their warnings, ten frames or more apart."""
        frames: dict[int, str] = {}
        for index in sorted(self.warnings):
            if not frames or index - max(frames) >= 10:
                frames[index] = self.warnings[index]
        return frames

    def write(self) -> tuple[Path, Path]:
        """Write overlay.mp4, and masks.zip in DAVIS layout with worth_a_look.json."""
        colors = self.colors or dict(enumerate(COLORS.values(), 1))

        def labels(index: int) -> Array | None:
            return self.ids(index).astype(np.int32) if index in self.result_frames else None

        movie = write_overlay(self.folder / "overlay.mp4", self.frames, labels, colors)
        notes = self.folder / "worth_a_look.json"
        notes.write_text(json.dumps(self.frames_to_review(), indent=1))
        masks = [
            (self._mask(i), f"Annotations/{self.path.stem}/{i:05d}.png")
            for i in sorted(self.result_frames)
        ]
        return movie, pack(self.folder / "masks.zip", [*masks, (notes, notes.name)])

    def _mask(self, index: int) -> Path:
        return self.folder / "masks" / f"{index:05d}.png"
