"""Memory: annotated frames and the last predicted ones, as examples for the frames to come."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from incontext.errors import InputError
from incontext.images.image import resize_nearest
from incontext.inference.example import Example
from incontext.inference.predictor import THIN_TO, Predictor
from incontext.inference.prompt import Pass, Prompt, align, check_palettes, group
from incontext.inference.segmentation import Segmentation
from incontext.labels.color_mask import Rgb
from incontext.labels.coloring import PALETTE, Coloring
from incontext.labels.encodings import UNKNOWN, IdMap, Labels
from incontext.labels.partial import shrink
from incontext.model.tokens.encoder import EncodedPrompt
from incontext.video.policies import Judged, Official, Rule

EXAMPLES = -1  # stands for the examples of other pictures among numbers of frames


@dataclass(eq=False)
class _Kept:
    """A frame at the model's size, and what it is encoded as in each pass."""

    index: int
    example: Example
    encoded: list[EncodedPrompt]


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
        self.predictor, self.rule, self.base = predictor, rule, base
        self.kind = base.kind if base else kind
        self.names = dict(names or {})
        if base:
            _check_base(base, rule)
        maps = align(examples) if len(examples) else []
        self.examples = [
            self._small(Example.of(e.image, m)) for e, m in zip(examples, maps, strict=True)
        ]
        self.maps = maps  # of the examples, at their own size
        self.annotated: dict[int, Example] = {}
        # Ids of annotated frames, also those without a pixel at the model's size.
        self._present: dict[int, list[int]] = {}
        # Ids that annotated frames, and the examples, may show where they are blank.
        self._doubted: dict[int, set[int]] = {}
        self._colors: dict[int, Rgb] = {}
        self.recent: deque[_Kept] = deque(maxlen=rule.keep)
        self.changes = 0  # of the predicted frames
        self.encodings = 0  # of frames, in one pass each
        self._fixed: list[EncodedPrompt] | None = None  # of annotated frames; None: to be made anew
        self.colorings: list[Coloring] = []  # of the passes
        self._itself: dict[int, dict[int, float]] = {}  # what annotated frames give of themselves
        self._asked: _Kept | None = None  # the frame asked back last
        self._index = 0  # of the frame observed last

    @property
    def ids(self) -> list[int]:
        """Of the base, the examples and the annotated frames, ascending."""
        found = set(self.base.ids if self.base else ())
        found = found.union(*self._present.values(), *(e.labels.present for e in self.examples))
        return sorted(found)

    @property
    def _shown(self) -> list[Example]:
        """What is always an example."""
        return [*self.examples, *self.annotated.values()]

    @property
    def colors(self) -> dict[int, Rgb]:
        """For people, of every id: the base's or the labels' own, else one that is free; an id
        keeps its color."""
        known = {i: c for e in self._shown for i, c in e.labels.colors.items()}
        known |= self.base.colors if self.base else {}
        for index in self.ids:
            if index not in self._colors:
                taken = {*self._colors.values(), *known.values()}
                free = [c for c in PALETTE.colors[1:] if c not in taken]  # white left out
                own = known.get(index)
                self._colors[index] = own or (free[0] if free else PALETTE.of(index))
        return {index: self._colors[index] for index in self.ids}

    def annotate(self, index: int, example: Example, news: Collection[int] = ()) -> None:
        """A frame whose labels are given; a later annotation of the same frame replaces it.

        Args:
            news: ids that nobody looked for before: what was blank in earlier labels may be them.

        Raises:
            InputError: an id has one color in one palette and another in another.
        """
        check_palettes([*self.maps, *(e.labels for e in self.annotated.values()), example.labels])
        fresh = set(news) - set(self.ids)
        if fresh:
            for number in (EXAMPLES, *self.annotated):
                self._doubted.setdefault(number, set()).update(fresh)
            self.recent.clear()  # predicted by something that did not know of them
        self._doubted.pop(index, None)
        self.annotated[index] = self._small(example)
        self._present[index] = example.labels.present
        self._itself = {}  # also of other frames: the paintings' ids may change
        self.recent = deque((k for k in self.recent if k.index != index), self.rule.keep)
        self.changes += 1
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
        self.changes += 1

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
        """How well a frame, shown alone, gives back annotated frames: for each of its ids the IoU
        on the nearest one that shows it, as a share of what that one gives of itself, 0–1. Ids
        that no annotated frame shows are left out."""
        wanted: dict[int, list[int]] = {}
        for index in np.unique(ids[ids > 0]).tolist():
            shows = [n for n, e in self.annotated.items() if (e.labels.ids == index).any()]
            if shows:
                near = min(shows, key=lambda number: abs(number - self._index))
                wanted.setdefault(near, []).append(index)
        if wanted:
            self._asked = self._kept(self._index, self._example(picture, ids))
        shares: dict[int, float] = {}
        for number, several in wanted.items():
            asked = self.annotated[number]
            if number not in self._itself:
                self._itself[number] = self._gives(self._kept(0, asked), asked)
            best, found = self._itself[number], self._gives(self._asked, asked)
            shares |= {i: min(1.0, found[i] / best[i]) for i in several if best.get(i)}
        return shares

    def _gives(self, shown: "_Kept | None", asked: Example) -> dict[int, float]:
        """IoU of the ids of one picture, where they are known, with another as the only example."""
        assert shown is not None
        pairs = zip(self.colorings, shown.encoded, strict=True)
        passes = tuple(Pass(coloring, encoded) for coloring, encoded in pairs)
        answer = self.predictor.predict(asked.image, self._prompt_of(passes, 1)).labels
        scores, known = {}, asked.labels.ids != UNKNOWN
        for index in asked.labels.present:
            truth, ours = asked.labels.ids == index, (answer == index) & known
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
        if self.ids == [index]:
            raise InputError(f"id {index} is all there is to look for; stop() ends the track")
        self.annotated = {n: _without(e, index) for n, e in self.annotated.items()}
        self.examples = [_without(example, index) for example in self.examples]
        for kept in self.recent:
            kept.example = _without(kept.example, index)
        self._present = {n: [i for i in p if i != index] for n, p in self._present.items()}
        self.names.pop(index, None)
        self.changes += 1
        self._fixed, self._itself = None, {}

    def forget_recent(self) -> None:
        """Only annotated frames stay."""
        self.recent.clear()
        self.changes += 1

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
            passes.append(Pass(coloring, EncodedPrompt.concat(parts)))
        others = self.base.examples if self.base else 0
        return self._prompt_of(tuple(passes), len(self._shown) + len(self.recent) + others)

    def _prompt_of(self, passes: tuple[Pass, ...], examples: int) -> Prompt:
        """Something encoded as a prompt of this memory's ids."""
        names = {i: str(i) for i in self.ids} | (self.base.names if self.base else {}) | self.names
        return Prompt(
            tuple(self.ids), self.colors, names, self.kind, examples, passes,
            self.predictor.checkpoint, model_name=self.predictor.name,
        )  # fmt: skip

    def _encode_anew(self) -> None:
        """Colorings and annotated frames; predicted ones follow when they are asked for."""
        base = self.base
        rest = [i for i in self.ids if not (base and i in base.ids)]
        self.colorings = [part.coloring for part in base.passes] if base else []
        self.colorings += group(rest, self.rule.per_pass, None) if rest else []
        self._fixed = [
            self._encode(shown, coloring, 0)
            for coloring in self.colorings
            if (shown := self._known_to(coloring.ids))
        ]
        for kept in self.recent:
            kept.encoded = []

    def _known_to(self, ids: Collection[int]) -> list[Example]:
        """What is always an example, unknown where it is blank and may show one of these ids."""
        numbers = [*(EXAMPLES for _ in self.examples), *self.annotated]
        known = []
        for number, example in zip(numbers, self._shown, strict=True):
            shown = example
            if self._doubted.get(number, set()) & set(ids):
                blank = np.where(example.labels.ids == 0, UNKNOWN, example.labels.ids)
                shown = Example.of(example.image, replace(example.labels, ids=blank))
            known.append(shown)
        return known

    def _encode(self, examples: Sequence[Example], coloring: Coloring, start: int) -> EncodedPrompt:
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
    painted = [part.coloring.colors for part in base.passes]
    if isinstance(rule, Official) and any(colors != ((255, 255, 255),) for colors in painted):
        raise InputError(
            "the official rule knows one object a painting, in white; make the prompt with "
            "classes_per_pass=1"
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
