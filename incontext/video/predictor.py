"""Video: labels on some frames, an answer for every frame, the same ids throughout."""

import warnings
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from incontext.checkpoints import checkpoint
from incontext.errors import InputError
from incontext.inference.example import Example
from incontext.inference.predictor import Predictor
from incontext.inference.prompt import KINDS, Prompt, check_names
from incontext.inference.segmentation import Segmentation
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import UNKNOWN, Labels, LabelsLike
from incontext.video.frames import Frames
from incontext.video.memory import Memory, annotation
from incontext.video.monitor import Seen, Watch
from incontext.video.policies import Rule, Trusted
from incontext.video.sources import open_frames

DIRECTIONS = ("forward", "backward", "both")
READING = {"colors", "ignore", "threshold", "unlabelled", "negative"}  # options of `Example`


@dataclass(frozen=True)
class Added:
    """Labels of objects that nobody looked for before: the rest of their frame is unknown, and so
    is what earlier labels left blank."""

    labels: "LabelsLike | Labels"


class VideoPredictor:
    """Has a `Predictor`, takes frames, answers each with the ids of the labels given.

    Args:
        rule: which predicted frames are remembered, see `incontext.video.policies`.
        kind: "instance" (the very objects) or "semantic" (all of their class).

    Raises:
        InputError: another kind.
    """

    def __init__(
        self, predictor: Predictor, *, rule: Rule | None = None, kind: str = "instance"
    ) -> None:
        if kind not in KINDS:
            raise InputError(f"kind {kind!r}; accepted: {', '.join(KINDS)}")
        self.predictor, self.rule, self.kind = predictor, rule or Trusted(), kind

    @classmethod
    def from_pretrained(
        cls, source: str | Path = checkpoint.DEFAULT, *, rule: Rule | None = None,
        kind: str = "instance", **options: Any,
    ) -> "VideoPredictor":  # fmt: skip
        """With a bundled, local or hub checkpoint; options of `Predictor.from_pretrained`."""
        return cls(Predictor.from_pretrained(source, **options), rule=rule, kind=kind)

    def track(
        self,
        frames: Any,
        labels: "LabelsLike | Labels | Mapping[int, LabelsLike | Labels | Added] | None" = None,
        *,
        prompt: Prompt | str | Path | None = None,
        examples: Sequence[Example] = (),
        names: Mapping[int, str] | None = None,
        direction: str | None = None,
        start: int | None = None,
        **reading: Any,
    ) -> "Track":
        """Follow objects through frames: an iterator of (index, `Segmentation`).

        Args:
            frames: see `incontext.video.sources.open_frames`.
            labels: of the first frame, or {frame number from 0 on: labels}; see `read_labels`.
                They are the answer for these frames, and complete: an id that they lack is absent
                there. `Added(labels)` names new objects only. Where labels are unknown the model's
                prediction stands.
            prompt: of this predictor, or a file, to go along with every frame: a tuned one, say.
            examples: other pictures with labels, to go along likewise. With a prompt or examples
                labels may be left out.
            names: of ids.
            direction: "forward" from the first labelled frame on (without labels: from the first
                frame), "backward" from the last one down to frame 0, or "both": forward, then from
                the first labelled frame down. None or "auto": "both" where frames come before the
                first labelled one and can be read again, else "forward".
            start: the frame to begin with, in place of the first labelled one ("backward": the
                last one). Frames answered before need not be answered again where labels are
                given for a later one.
            reading: options of `Example` for the labels.

        Raises:
            InputError: frames or labels that cannot be used, or no such frame.
        """
        direction = None if direction == "auto" else direction
        if direction is not None and direction not in DIRECTIONS:
            raise InputError(f"direction {direction!r}; accepted: auto, {', '.join(DIRECTIONS)}")
        strange = sorted(set(reading) - READING)
        if strange:
            raise TypeError(
                f"track() knows no {strange[0]}; a rule of memory goes to VideoPredictor(rule=…)"
            )
        if isinstance(prompt, (str, Path)):
            prompt = self.predictor.load_prompt(prompt)
        if prompt is not None:
            self.predictor.check_prompt(prompt)
            prompt = prompt.to(self.predictor.device)
        memory = Memory(self.predictor, self.rule, self.kind, prompt, examples, names)
        given = _by_frame(labels)
        if not given and not memory.ids:
            raise InputError("nothing to look for: pass labels of a frame, a prompt or examples")
        source = open_frames(frames)
        return Track(self.predictor, source, memory, given, direction, reading, start)


class Track:
    """One way through the frames: an iterator of (index, `Segmentation`) that can be talked to.

    Between two frames the one answered last can be corrected, objects can be added and removed;
    it counts from the next frame on. What was answered stays with the caller, so that stopping at
    any point loses nothing.

    `seen` says of the frame answered last what was seen of each id (`monitor.Seen`): how
    far its mask can be trusted, and why the frame is worth a look, if it is.
    """

    def __init__(
        self, predictor: Predictor, frames: Frames, memory: Memory,
        labels: "Mapping[int, LabelsLike | Labels | Added]", direction: str | None = None,
        reading: Mapping[str, Any] | None = None, start: int | None = None,
    ) -> None:  # fmt: skip
        self.predictor, self.frames, self.memory = predictor, frames, memory
        self.reading = dict(reading or {})
        self.direction = _direction(frames, labels, direction)
        self._waiting = dict(labels)  # of frames that have not been seen yet
        self._given: dict[int, Labels] = {}  # of those that have, at their own size
        self.watch, self.seen = Watch(), dict[int, Seen]()
        table = {i: c for m in memory.maps if m.discovered for i, c in m.colors.items()}
        if table and self.reading.get("colors") is None:
            self.reading["colors"] = table
        self._last: tuple[int, Image.Image, Segmentation] | None = None
        if frames.sought:
            for index in sorted(labels):
                self._annotate(index, frames.at(index))
            self.memory.prompt()  # says at once where the labels show no object
            check_names(memory.names, memory.ids)
        self._first = _start(frames, start, min(labels, default=0))
        last = frames.last() if self.direction == "backward" and not labels else 0
        self._end = _start(frames, start, max(labels, default=last))
        self._answers = self._run()

    def __iter__(self) -> "Track":
        return self

    def __next__(self) -> tuple[int, Segmentation]:
        return next(self._answers)

    def worth_a_look(self) -> list[int]:
        """Frames so far that should be looked at, and annotated anew where they are wrong."""
        return self.watch.worth_a_look()

    def stop(self) -> None:
        """End here; the source is closed."""
        self._answers.close()
        self.frames.close()

    def resume(self, after: int, state: Mapping[str, Any]) -> None:
        """Go on behind a frame that was answered before, with what was remembered then.

        `state`: of `Memory.state`; frames must be `sought`.
        """
        self.memory.restore(state)
        self._answers = self._run(after)

    def correct(
        self, labels: "LabelsLike | Labels", *, news: Collection[int] = (), **reading: Any
    ) -> Segmentation:
        """Labels of the frame answered last, in place of that answer; the new answer.

        Args:
            labels: complete: an id that they lack is absent.
            news: ids that may have been there before, see `Added`.
            reading: options of `Example`.

        Raises:
            InputError: no frame has been answered, or labels that cannot be used.
        """
        index, picture, _ = self._answered()
        self._waiting[index] = labels
        self._annotate(index, picture, reading, news)
        return self._answer(index, picture)

    def add(self, index: int, mask: Any, name: str | None = None) -> Segmentation:
        """One more object, or a better mask of one, on the frame answered last; the new answer.

        Args:
            index: its id, 1 … 65 535.
            mask: (H, W) bool.

        Raises:
            InputError: no frame has been answered, an id that is none, or another size.
        """
        _, _, result = self._answered()
        if isinstance(index, bool) or not 1 <= index <= MAX_ID:
            raise InputError(f"id {index}; accepted: 1 … {MAX_ID}")
        given = mask if isinstance(mask, np.ndarray) else np.asarray(mask)
        if given.dtype != bool and not set(np.unique(given).tolist()) <= {0, 1}:
            raise InputError(
                "a mask of one object is True or 1 where it is; for several: correct()"
            )
        inside = given.astype(bool)
        if inside.shape != result.labels.shape:
            raise InputError(f"a mask of shape {inside.shape}; the frame is {result.labels.shape}")
        if not inside.any():
            raise InputError("the mask is empty; to forget an object call remove(id)")
        ids = np.where(result.labels == index, 0, result.labels)
        ids[inside] = index
        if name is not None:
            self.memory.names[index] = name
        return self.correct(Labels(ids), news=(index,))

    def remove(self, index: int) -> None:
        """Look for an object no longer.

        Raises:
            InputError: no such id, one of the prompt's, or the only one.
        """
        self.memory.remove(index)
        for frame, labels in self._given.items():
            ids = np.where(labels.ids == index, 0, labels.ids)
            self._given[frame] = replace(labels, ids=ids)

    def _answered(self) -> tuple[int, Image.Image, Segmentation]:
        if self._last is None:
            raise InputError("no frame has been answered yet; take one first: next(track)")
        return self._last

    def _annotate(
        self, index: int, picture: Image.Image, reading: Mapping[str, Any] | None = None,
        news: Collection[int] = (),
    ) -> None:  # fmt: skip
        """Read what was given for a frame and remember it."""
        given, options = self._waiting.pop(index), {**self.reading, **(reading or {})}
        added = isinstance(given, Added)
        if isinstance(given, Added):
            given, options = given.labels, {**options, "unlabelled": "unknown"}
        try:
            if isinstance(given, Labels):
                example = Example.of(picture, given)
            else:
                # COCO annotations are looked up by the name of the frame's file.
                shown = self.frames.where(index) or picture if _is_json(given) else picture
                example = Example(shown, given, **options)
            if example.labels.ids.shape != (picture.height, picture.width):
                raise InputError(
                    f"labels of shape {example.labels.ids.shape}; the frame is "
                    f"{(picture.height, picture.width)}"
                )
            labels = self._with_known_colors(example.labels)
            news = labels.present if added else news
            lacking = [] if added else [i for i in self.memory.ids if i not in labels.present]
            self.memory.annotate(index, Example.of(picture, labels), news)
        except InputError as error:
            raise InputError(f"labels of frame {index}: {error}") from None
        self._given[index] = labels
        if lacking and labels.present and not (labels.ids == UNKNOWN).any():
            several = ", ".join(map(str, lacking[:4]))
            warnings.warn(
                f"labels of frame {index} lack id {several}: taken as absent there; labels of new "
                "objects alone are Added(labels) (--add)", stacklevel=3,
            )  # fmt: skip

    def _with_known_colors(self, labels: Labels) -> Labels:
        """What a color of a color mask is called holds for the whole video.

        Raises:
            InputError: colors beside ids that something else brings.
        """
        if not labels.discovered:
            return labels
        if self.memory.ids:
            raise InputError(
                "a color mask beside ids that the other labels, examples or the prompt bring: "
                "which is which is unknown; pass colors={id: (r, g, b)} (--color)"
            )
        self.reading["colors"] = dict(labels.colors)
        return Labels(labels.ids, labels.colors)

    def _order(self, after: int | None) -> Iterator[tuple[int, Image.Image]]:
        """Frames in the order in which they are answered, behind frame `after`."""
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
            self.watch.turn()
        yield from self.frames.backward(start) if start >= 0 else ()

    def _run(self, after: int | None = None) -> Generator[tuple[int, Segmentation], None, None]:
        for index, picture in self._order(after):
            if index in self._waiting:
                self._annotate(index, picture)
            if not self.memory.ids and self._waiting:  # a stream before its first labels
                continue
            result = self._answer(index, picture)
            yield index, result
            self._given.pop(index, None)  # they are an example by now
        if self._waiting:
            missing = ", ".join(map(str, sorted(self._waiting)[:4]))
            raise InputError(f"labels of frame {missing}, which never came")

    def _answer(self, index: int, picture: Image.Image) -> Segmentation:
        """What is given for a frame, or predicted; the latter may be remembered."""
        prompt, given, trust = self.memory.prompt(), self._given.get(index), dict[int, float]()
        if given is not None and not (given.ids == UNKNOWN).any():
            result = annotation(prompt, picture, given.ids, None)
        else:
            result = self.predictor.predict(picture, prompt)
            if given is not None:
                result = annotation(prompt, picture, given.ids, result)
            else:
                judged = self.memory.observe(index, picture, result)
                result, trust = judged.result, judged.trust
        self.seen = self.watch.look(index, result, trust, given is not None)
        self._last = (index, picture, result)
        return result


def _is_json(labels: Any) -> bool:
    return isinstance(labels, (str, Path)) and Path(labels).suffix.lower() == ".json"


def _by_frame(labels: Any) -> dict[int, Any]:
    """{frame: labels}; a COCO annotation is a dictionary too."""
    if labels is None:
        return {}
    if not isinstance(labels, Mapping) or any(isinstance(key, str) for key in labels):
        return {0: labels}
    for key in labels:
        if isinstance(key, bool) or not isinstance(key, (int, np.integer)) or key < 0:
            raise InputError(f"labels of frame {key!r}; accepted: whole numbers from 0 on")
    return {int(key): value for key, value in labels.items()}


def _start(frames: Frames, wanted: int | None, usual: int) -> int:
    if wanted is None:
        return usual
    if isinstance(wanted, bool) or not isinstance(wanted, (int, np.integer)) or wanted < 0:
        raise InputError(f"start {wanted!r}; accepted: a frame, 0, 1, 2 …")
    if not frames.sought:
        raise InputError("start needs frames that can be read again, not a stream")
    frames.at(int(wanted))  # says so where there is no such frame
    return int(wanted)


def _direction(frames: Frames, labels: Mapping[int, Any], wanted: str | None) -> str:
    if wanted is None:
        return "both" if frames.sought and min(labels, default=0) > 0 else "forward"
    if wanted != "forward" and not frames.sought:
        raise InputError(
            f"direction {wanted!r} needs frames that can be read again: a file, a folder, a list "
            "or an array, not a stream"
        )
    return wanted
