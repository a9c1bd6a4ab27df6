"""Memory: annotated frames and the last predicted ones, as examples for the frames to come.

What of a predicted frame is remembered says a rule, a small object that can be replaced.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from incontext.color import Coloring
from incontext.color_mask import Rgb
from incontext.errors import InputError
from incontext.example import Example
from incontext.image import resize_nearest
from incontext.labels import UNKNOWN, IdMap, Labels
from incontext.model.encoder import Encoded
from incontext.partial import shrink
from incontext.predictor import CLASSES_PER_PASS, THIN_TO, Predictor
from incontext.prompt import Pass, Prompt, align, display_colors, group
from incontext.segmentation import Segmentation


@dataclass(frozen=True)
class Rule(ABC):
    """Which predicted frames are remembered, and as what.

    Args:
        keep: K, how many of them; the oldest makes room. 0: only annotated frames are examples.
        per_pass: ids that one painting may show.
    """

    keep: int = 4
    per_pass: int = CLASSES_PER_PASS

    def __post_init__(self) -> None:
        if isinstance(self.keep, bool) or not isinstance(self.keep, int) or self.keep < 0:
            raise InputError(f"keep is {self.keep!r}; accepted: whole numbers, 0 or more")

    @abstractmethod
    def judge(self, picture: Image.Image, result: Segmentation, memory: "Memory") -> "Judged":
        """What to answer for a frame, and what to remember of it.

        Args:
            picture: the frame.
            result: what was predicted; `result.paintings` has one for each of `memory.colorings`.
            memory: what it was predicted from.
        """


@dataclass(frozen=True)
class Judged:
    """`labels` to remember a frame with, of any size, -1 where unknown; None: not at all.

    `trust`: for ids that were looked into, how far their masks can be trusted, 0–1.
    """

    result: Segmentation
    labels: "IdMap | None" = None
    trust: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Official(Rule):
    """The rule of SegGPT's released video script: every frame is remembered, and its painting is
    made white where the mean of RGB is over 128, black elsewhere (official `inference_video`).

    So one painting knows one object; several are asked for one after the other.
    """

    per_pass: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_pass != 1:
            raise InputError(f"per_pass is {self.per_pass}; the official rule knows one object")

    def judge(self, picture: Image.Image, result: Segmentation, memory: "Memory") -> Judged:
        """See `Rule`."""
        ids = np.zeros(result.paintings[0].shape[:2], np.int32)
        for painting, coloring in zip(result.paintings, memory.colorings, strict=True):
            ids[painting.astype(float).mean(-1) > 128] = coloring.ids[0]
        return Judged(result, ids)


@dataclass(frozen=True)
class Trusted(Rule):
    """Frames that show something, surely, and that give back the annotated frame.

    A frame is asked back: shown alone with what was predicted for it, it must paint the annotated
    frame nearly as well as that frame does itself. A prediction that has gone astray does not;
    one that brings nothing back is no object, and its mask is emptied.

    Args:
        sure: mean confidence over an object's pixels below which a frame is not remembered.
        doubt: half of the range of presence around 0.5 in which it is not either.
        back: how well each object must come back to be remembered: IoU as a share of what the
            annotated frame gives of itself, 0–1; 0: frames are not asked.
        absent: share below which there is no such object in the frame.
    """

    sure: float = 0.5
    doubt: float = 0.3
    back: float = 0.9
    absent: float = 0.2

    def judge(self, picture: Image.Image, result: Segmentation, memory: "Memory") -> Judged:
        """See `Rule`."""
        trust = {}
        if self.back and memory.annotated and result.labels.any():
            back = memory.ask_back(picture, result.labels)
            trust = {i: share for i, share in back.items() if (result.labels == i).any()}
        gone = [i for i, share in trust.items() if share < self.absent]
        result = emptied(result, gone, trust)
        seen = [i for i in result.presence if (result.labels == i).any()]
        sure = [float(result.confidence[result.labels == i].mean()) for i in seen]
        refused = (
            not seen or gone or min(sure) < self.sure
            or any(abs(there - 0.5) < self.doubt for there in result.presence.values())
            or min((trust[i] for i in seen if i in trust), default=1.0) < self.back
        )  # fmt: skip
        return Judged(result, None if refused else result.labels, trust)


def emptied(
    result: Segmentation, ids: Sequence[int], presence: Mapping[int, float]
) -> Segmentation:
    """A result without the masks of some ids, whose presence becomes the one given."""
    if not ids:
        return result
    inside = np.isin(result.labels, ids)
    return replace(
        result, labels=np.where(inside, 0, result.labels).astype(np.int32),
        confidence=np.where(inside, 0, result.confidence).astype(np.float32),
        presence={i: presence[i] if i in ids else p for i, p in result.presence.items()},
    )  # fmt: skip


@dataclass(eq=False)
class _Kept:
    """A frame at the model's size, and what it is encoded as in each pass."""

    index: int
    example: Example
    encoded: list[Encoded]


class Memory:
    """Examples of a video so far, as a prompt for its next frame.

    Annotated frames are always among them, in whatever number; of the predicted ones the last K
    that the rule admits. Each is encoded once, and again only where ids come or go or a frame is
    annotated.

    Args:
        base: a prompt, such as a learned one, to go along with all frames.
        examples: other pictures, to go along with all frames.
        names: of ids.

    Raises:
        InputError: a prompt that no frame can join.
    """

    def __init__(
        self, predictor: Predictor, rule: Rule, kind: str, base: Prompt | None = None,
        examples: Sequence[Example] = (), names: Mapping[int, str] | None = None,
    ) -> None:  # fmt: skip
        self.predictor, self.rule, self.kind, self.base = predictor, rule, kind, base
        self.names = dict(names or {})
        if base:
            _check_base(base, rule)
        maps = align(examples) if len(examples) else []
        self.examples = [
            self._small(Example.of(e.image, m)) for e, m in zip(examples, maps, strict=True)
        ]
        self.annotated: dict[int, Example] = {}
        self.recent: deque[_Kept] = deque(maxlen=rule.keep)
        self.encodings = 0  # of frames, in one pass each
        self._fixed: list[Encoded] | None = None  # of annotated frames; None: to be made anew
        self.colorings: list[Coloring] = []  # of the passes
        self._itself: dict[int, float] | None = None  # what the annotated frame gives of itself
        self._asked: _Kept | None = None  # the frame asked back last
        self._index = 0  # of the frame observed last

    @property
    def ids(self) -> list[int]:
        """Of the base, the examples and the annotated frames, ascending."""
        found = set(self.base.ids if self.base else ())
        return sorted(found.union(*(e.labels.present for e in self._shown)))

    @property
    def _shown(self) -> list[Example]:
        """What is always an example."""
        return [*self.examples, *self.annotated.values()]

    @property
    def colors(self) -> dict[int, Rgb]:
        """For people, of every id."""
        maps = [example.labels for example in self._shown]
        table = display_colors(maps, self.ids)
        return {**table, **(self.base.colors if self.base else {})}

    def annotate(self, index: int, example: Example) -> None:
        """A frame whose labels are given; a later annotation of the same frame replaces it."""
        self.annotated.pop(index, None)  # the frame seen last stands last
        self.annotated[index] = self._small(example)
        self._itself = None
        self.recent = deque((k for k in self.recent if k.index != index), self.rule.keep)
        self._fixed = None

    def observe(self, index: int, picture: Image.Image, result: Segmentation) -> Judged:
        """A frame that was predicted: the rule's judgment, which is followed."""
        self._index, self._asked = index, None
        if not self.rule.keep:
            return Judged(result)
        judged = self.rule.judge(picture, result, self)
        if judged.labels is not None:
            self.put(index, picture, judged.labels)
        return judged

    def put(self, index: int, picture: Image.Image, ids: IdMap) -> None:
        """Remember a predicted frame as one with these labels, of any size."""
        example, asked = self._example(picture, ids), self._asked
        self._asked = None
        # What was encoded to ask it back need not be encoded again.
        same = asked and np.array_equal(asked.example.labels.ids, example.labels.ids)
        self.recent.append(_Kept(index, example, asked.encoded if asked and same else []))

    def _example(self, picture: Image.Image, ids: IdMap) -> Example:
        """A frame at the model's size."""
        return Example.of(self._resized(picture), Labels(shrink(ids, self.predictor.size)))

    def _kept(self, index: int, example: Example) -> _Kept:
        """A frame, encoded."""
        # Each has a pattern of its own of which tokens are kept.
        number = len(self._shown) + index % max(1, self.rule.keep)
        encoded = [self._encode([example], coloring, number) for coloring in self.colorings]
        return _Kept(index, example, encoded)

    def ask_back(self, picture: Image.Image, ids: IdMap) -> dict[int, float]:
        """How well a frame, shown alone, gives back the annotated frame seen last: IoU of each id
        there, as a share of what that frame gives of itself, 0–1."""
        asked = list(self.annotated.values())[-1]
        if self._itself is None:
            self._itself = self._gives(self._kept(0, asked), asked)
        self._asked = self._kept(self._index, self._example(picture, ids))
        found = self._gives(self._asked, asked)
        return {i: min(1.0, found[i] / best) for i, best in self._itself.items() if best}

    def _gives(self, shown: "_Kept", asked: Example) -> dict[int, float]:
        """IoU of the ids of one picture when another is the only example."""
        pairs = zip(self.colorings, shown.encoded, strict=True)
        passes = tuple(Pass(coloring, encoded) for coloring, encoded in pairs)
        prompt = replace(self.prompt(), passes=passes)
        answer = self.predictor.predict(asked.image, prompt).labels
        scores = {}
        for index in asked.labels.present:
            truth, ours = asked.labels.ids == index, answer == index
            scores[index] = float((truth & ours).sum() / max(1, (truth | ours).sum()))
        return scores

    def remove(self, index: int) -> None:
        """Forget an id: its pixels are background from here on.

        Raises:
            InputError: there is no such id, or it is one of the base prompt's.
        """
        if self.base and index in self.base.ids:
            raise InputError(
                f"id {index} is one of the prompt's; accepted: ids of annotated frames"
            )
        if index not in self.ids:
            raise InputError(f"no id {index} here; there are {self.ids}")
        self.annotated = {n: _without(e, index) for n, e in self.annotated.items()}
        self.examples = [_without(example, index) for example in self.examples]
        for kept in self.recent:
            kept.example = _without(kept.example, index)
        self.names.pop(index, None)
        self._fixed = self._itself = None

    def forget_recent(self) -> None:
        """Only annotated frames stay."""
        self.recent.clear()

    def prompt(self) -> Prompt:
        """All of it as a prompt.

        Raises:
            InputError: nothing that shows an object.
        """
        if not self.ids:
            raise InputError("nothing to look for: no labels with an object, and no prompt")
        if self._fixed is None:
            self._encode_anew()
        assert self._fixed is not None
        for kept in self.recent:
            kept.encoded = kept.encoded or self._kept(kept.index, kept.example).encoded
        passes, own = [], self.base.passes if self.base else ()
        for number, coloring in enumerate(self.colorings):
            parts = [part.encoded for part in own[number : number + 1]]
            parts += self._fixed[number : number + 1]
            parts += [kept.encoded[number] for kept in self.recent]
            passes.append(Pass(coloring, Encoded.joined(parts)))
        ids, base = self.ids, self.base
        names = {i: str(i) for i in ids} | (base.names if base else {}) | self.names
        return Prompt(
            tuple(ids), self.colors, names, self.kind,
            len(self._shown) + len(self.recent) + (base.examples if base else 0),
            tuple(passes), self.predictor.checkpoint, model_name=self.predictor.name,
        )  # fmt: skip

    def _encode_anew(self) -> None:
        """Colorings and annotated frames; predicted ones follow when they are asked for."""
        base = self.base
        rest = [i for i in self.ids if not (base and i in base.ids)]
        self.colorings = [part.coloring for part in base.passes] if base else []
        self.colorings += group(rest, self.rule.per_pass, None) if rest else []
        shown = self._shown
        self._fixed = [self._encode(shown, c, 0) for c in self.colorings if shown]
        for kept in self.recent:
            kept.encoded = []

    def _encode(self, examples: Sequence[Example], coloring: Coloring, start: int) -> Encoded:
        self.encodings += len(examples)
        most = len(self._shown) + self.rule.keep
        alone = not self.rule.keep and not self.base
        return self.predictor.encode(
            examples, coloring, kind=self.kind, share=min(1.0, THIN_TO / max(1, most)),
            settle=alone, start=start,
        )  # fmt: skip

    def _small(self, example: Example) -> Example:
        """An example at the model's size."""
        labels = replace(example.labels, ids=shrink(example.labels.ids, self.predictor.size))
        return Example.of(self._resized(example.image), labels)

    def _resized(self, picture: Image.Image) -> Image.Image:
        size = (self.predictor.size, self.predictor.size)
        return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=None)

    def state(self) -> dict[str, Any]:
        """The predicted frames, for `restore`: arrays by name."""
        size = self.predictor.size
        pictures = [np.asarray(k.example.image) for k in self.recent]
        ids = [k.example.labels.ids for k in self.recent]
        return {
            "indices": np.array([k.index for k in self.recent], np.int64),
            "pictures": np.array(pictures, np.uint8).reshape(-1, size, size, 3),
            "ids": np.array(ids, np.int32).reshape(-1, size, size),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """The predicted frames that `state` answered."""
        self.recent.clear()
        several = zip(state["indices"], state["pictures"], state["ids"], strict=True)
        for index, picture, ids in several:
            self.put(int(index), Image.fromarray(picture), ids)


def _check_base(base: Prompt, rule: Rule) -> None:
    """Raise InputError for a prompt that no frame can join."""
    if base.gallery:
        raise InputError(
            "a prompt made with nearest=… sees other examples in every frame; make it without"
        )
    if rule.per_pass < max(len(part.coloring.ids) for part in base.passes):
        raise InputError(
            f"{type(rule).__name__} knows {rule.per_pass} id a painting, the prompt more"
        )
    settled = any("known.shown" in part.encoded.tensors() for part in base.passes)
    if settled:
        raise InputError(
            "a prompt of a checkpoint with joint attention cannot be joined by frames; pass its "
            "examples instead (--example)"
        )


def _without(example: Example, index: int) -> Example:
    ids = np.where(example.labels.ids == index, 0, example.labels.ids)
    colors = {i: c for i, c in example.labels.colors.items() if i != index}
    return Example.of(example.image, Labels(ids, colors))


def annotation(
    prompt: Prompt, picture: Image.Image, ids: IdMap, predicted: Segmentation | None
) -> Segmentation:
    """The answer for an annotated frame: its labels, and what was predicted where they are unknown.

    `ids` (H, W) of the picture's size; `predicted` is needed where any is unknown.
    """
    known = ids != UNKNOWN
    labels, confidence = ids, np.ones(ids.shape, np.float32)
    if predicted is not None:
        labels = np.where(known, ids, predicted.labels)
        confidence = np.where(known, confidence, predicted.confidence)
    presence = {i: float((labels == i).any()) for i in prompt.ids}
    side = prompt.passes[0].encoded.size
    small = np.maximum(resize_nearest(labels, side), 0)
    paintings = tuple(part.coloring.paint(small) for part in prompt.passes)
    return Segmentation(
        labels.astype(np.int32), confidence, presence, picture, paintings, prompt.colors,
        prompt.names,
    )  # fmt: skip
