"""Track: one pass over the frames of a video, which accepts corrections between frames."""

import warnings
from collections.abc import Collection, Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from incontext.errors import InputError, former_attributes, former_parameters
from incontext.inference.example import Example
from incontext.inference.id_table import check_names
from incontext.inference.predictor import Predictor
from incontext.inference.segmentation import Segmentation
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import UNKNOWN, Labels, LabelsLike
from incontext.video.annotations import NewObjects, annotated_result
from incontext.video.frames import Frames
from incontext.video.memory import Memory
from incontext.video.monitor import ObjectStats, QualityMonitor


class Track:
    """One pass over the frames: yields (index, `Segmentation`) and accepts corrections in between.

    Between two frames the last one can be corrected, objects can be added and removed; it counts
    from the next frame on. Results stay with the caller, so stopping at any point loses nothing.

    Attributes:
        object_stats: of the last frame, by id: how far each mask can be trusted, and why the frame
            should be reviewed, if it should (`monitor.ObjectStats`).
    """

    def __init__(
        self, predictor: Predictor, frames: Frames, memory: Memory,
        labels: "Mapping[int, LabelsLike | Labels | NewObjects]", direction: str | None = None,
        label_options: Mapping[str, Any] | None = None, start: int | None = None,
    ) -> None:  # fmt: skip
        self.predictor, self.frames, self.memory = predictor, frames, memory
        self.label_options = dict(label_options or {})
        self.direction = _direction(frames, labels, direction)
        self._pending = dict(labels)  # of frames to come
        self._labels: dict[int, Labels] = {}  # of frames that came, at their own size
        self.monitor, self.object_stats = QualityMonitor(), dict[int, ObjectStats]()
        table = {i: c for m in memory.maps if m.discovered for i, c in m.colors.items()}
        if table and self.label_options.get("colors") is None:
            self.label_options["colors"] = table
        self._last: tuple[int, Image.Image, Segmentation] | None = None
        if frames.seekable:
            for index in sorted(labels):
                self._annotate(index, frames.at(index))
            self.memory.prompt()  # fails now, not later, if the labels show no object
            check_names(memory.names, memory.ids)
        self._first = _start(frames, start, min(labels, default=0))
        last = frames.last() if self.direction == "backward" and not labels else 0
        self._end = _start(frames, start, max(labels, default=last))
        self._results = self._run()

    __getattr__ = former_attributes(
        seen="object_stats", watch="monitor", worth_a_look="frames_to_review"
    )

    def __iter__(self) -> "Track":
        return self

    def __next__(self) -> tuple[int, Segmentation]:
        return next(self._results)

    def frames_to_review(self) -> list[int]:
        """Return the frames so far that should be looked at, and annotated if they are wrong."""
        return self.monitor.frames_to_review()

    def stop(self) -> None:
        """End here and close the source."""
        self._results.close()
        self.frames.close()

    def resume(self, after: int, state: Mapping[str, Any]) -> None:
        """Continue behind a frame that was segmented in an earlier run.

        Args:
            after: the frame; frames must be `seekable`.
            state: of `Memory.state`, after that frame.
        """
        self.memory.restore(state)
        self._results = self._run(after)

    @former_parameters(news="new_ids")
    def correct(
        self, labels: "LabelsLike | Labels", *, new_ids: Collection[int] = (), **label_options: Any
    ) -> Segmentation:
        """Replace the result of the last frame by labels, and return the new result.

        Args:
            labels: complete: an id that they lack is absent.
            new_ids: ids that may have been there before, see `NewObjects`.
            label_options: options of `Example`.

        Raises:
            InputError: no frame has been segmented, or labels that cannot be used.
        """
        index, image, _ = self._last_frame()
        self._pending[index] = labels
        self._annotate(index, image, label_options, new_ids)
        return self._segment(index, image)

    def add(self, index: int, mask: Any, name: str | None = None) -> Segmentation:
        """Add an object to the last frame, or a better mask of one, and return the new result.

        Args:
            index: its id, 1 … 65 535.
            mask: (H, W) bool.

        Raises:
            InputError: no frame has been segmented, an invalid id, or another size.
        """
        _, _, result = self._last_frame()
        if isinstance(index, bool) or not 1 <= index <= MAX_ID:
            raise InputError(f"id {index}; accepted: 1 … {MAX_ID}")
        values = mask if isinstance(mask, np.ndarray) else np.asarray(mask)
        if values.dtype != bool and not set(np.unique(values).tolist()) <= {0, 1}:
            raise InputError(
                "a mask of one object is True or 1 where it is; for several: correct()"
            )
        inside = values.astype(bool)
        if inside.shape != result.labels.shape:
            raise InputError(f"a mask of shape {inside.shape}; the frame is {result.labels.shape}")
        if not inside.any():
            raise InputError("the mask is empty; to forget an object call remove(id)")
        ids = np.where(result.labels == index, 0, result.labels)
        ids[inside] = index
        if name is not None:
            self.memory.names[index] = name
        return self.correct(Labels(ids), new_ids=(index,))

    def remove(self, index: int) -> None:
        """Look for an object no longer.

        Raises:
            InputError: no such id, one of the prompt's, or the only one.
        """
        self.memory.remove(index)
        for frame, labels in self._labels.items():
            ids = np.where(labels.ids == index, 0, labels.ids)
            self._labels[frame] = replace(labels, ids=ids)

    def _last_frame(self) -> tuple[int, Image.Image, Segmentation]:
        if self._last is None:
            raise InputError("no frame has been answered yet; take one first: next(track)")
        return self._last

    def _annotate(
        self, index: int, image: Image.Image, label_options: Mapping[str, Any] | None = None,
        new_ids: Collection[int] = (),
    ) -> None:  # fmt: skip
        """Read the labels of a frame and remember them."""
        labels, options = self._pending.pop(index), {**self.label_options, **(label_options or {})}
        partial = isinstance(labels, NewObjects)
        if isinstance(labels, NewObjects):
            labels, options = labels.labels, {**options, "unlabelled": "unknown"}
        try:
            ids = self._read(index, image, labels, options)
            new_ids = ids.present if partial else new_ids
            absent = [] if partial else [i for i in self.memory.ids if i not in ids.present]
            self.memory.annotate(index, Example.from_labels(image, ids), new_ids)
        except InputError as error:
            raise InputError(f"labels of frame {index}: {error}") from None
        self._labels[index] = ids
        if absent and ids.present and not (ids.ids == UNKNOWN).any():
            warnings.warn(
                f"labels of frame {index} lack id {', '.join(map(str, absent[:4]))}: taken as "
                "absent there; labels of new objects alone are NewObjects(labels) (--add)",
                stacklevel=3,
            )

    def _read(
        self, index: int, image: Image.Image, labels: "LabelsLike | Labels",
        options: Mapping[str, Any],
    ) -> Labels:  # fmt: skip
        if isinstance(labels, Labels):
            example = Example.from_labels(image, labels)
        else:
            # COCO annotations are looked up by the name of the frame's file.
            source = (self.frames.file_of(index) or image) if _is_json(labels) else image
            example = Example(source, labels, **options)
        if example.labels.ids.shape != (image.height, image.width):
            raise InputError(
                f"labels of shape {example.labels.ids.shape}; the frame is "
                f"{(image.height, image.width)}"
            )
        return self._with_known_colors(example.labels)

    def _with_known_colors(self, labels: Labels) -> Labels:
        """Keep what the colors of a color mask are called, for the whole video.

        Raises:
            InputError: a color mask, but ids come from something else as well.
        """
        if not labels.discovered:
            return labels
        if self.memory.ids:
            raise InputError(
                "a color mask beside ids that the other labels, examples or the prompt bring: "
                "which is which is unknown; pass colors={id: (r, g, b)} (--color)"
            )
        self.label_options["colors"] = dict(labels.colors)
        return Labels(labels.ids, labels.colors)

    def _order(self, after: int | None) -> Iterator[tuple[int, Image.Image]]:
        """Yield frames in the order in which they are segmented, behind frame `after`."""
        first = self._first
        ahead = self.direction != "backward"
        if ahead and not (after is not None and after < first):
            start = first if after is None else after + 1
            if not (self.frames.total is not None and start >= self.frames.total):
                yield from self.frames.forward(start)
            after = None
        if self.direction == "forward":
            return
        start = (first - 1 if ahead else self._end) if after is None else after - 1
        if ahead and start == first - 1:
            self.memory.forget_recent()
            self.monitor.reset_baseline()
        yield from self.frames.backward(start) if start >= 0 else ()

    def _run(self, after: int | None = None) -> Generator[tuple[int, Segmentation], None, None]:
        for index, image in self._order(after):
            if index in self._pending:
                self._annotate(index, image)
            if not self.memory.ids and self._pending:  # a stream before its first labels
                continue
            result = self._segment(index, image)
            yield index, result
            self._labels.pop(index, None)  # they are an example by now
        if self._pending:
            missing = ", ".join(map(str, sorted(self._pending)[:4]))
            raise InputError(f"labels of frame {missing}, which never came")

    def _segment(self, index: int, image: Image.Image) -> Segmentation:
        """Return a frame's labels, or its prediction, which the memory may keep."""
        prompt, labels, trust = self.memory.prompt(), self._labels.get(index), dict[int, float]()
        if labels is not None and not (labels.ids == UNKNOWN).any():
            result = annotated_result(prompt, image, labels.ids, None)
        else:
            result = self.predictor.predict(image, prompt)
            if labels is not None:
                result = annotated_result(prompt, image, labels.ids, result)
            else:
                decision = self.memory.observe(index, image, result)
                result, trust = decision.result, decision.trust
        self.object_stats = self.monitor.update(index, result, trust, labels is not None)
        self._last = (index, image, result)
        return result


def _is_json(labels: Any) -> bool:
    return isinstance(labels, (str, Path)) and Path(labels).suffix.lower() == ".json"


def _start(frames: Frames, start: int | None, default: int) -> int:
    if start is None:
        return default
    if isinstance(start, bool) or not isinstance(start, (int, np.integer)) or start < 0:
        raise InputError(f"start {start!r}; accepted: a frame, 0, 1, 2 …")
    if not frames.seekable:
        raise InputError("start needs frames that can be read again, not a stream")
    frames.at(int(start))  # raises if there is no such frame
    return int(start)


def _direction(frames: Frames, labels: Mapping[int, Any], direction: str | None) -> str:
    if direction is None:
        return "both" if frames.seekable and min(labels, default=0) > 0 else "forward"
    if direction != "forward" and not frames.seekable:
        raise InputError(
            f"direction {direction!r} needs frames that can be read again: a file, a folder, a "
            "list or an array, not a stream"
        )
    return direction
