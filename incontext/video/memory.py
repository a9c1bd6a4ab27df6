"""Memory: annotated frames and the last predicted ones, as examples for the frames to come."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from incontext.errors import InputError
from incontext.inference.example import Example
from incontext.inference.id_table import align_labels, assign_colorings, check_palettes
from incontext.inference.predictor import Predictor
from incontext.inference.prompt import Pass, Prompt
from incontext.inference.segmentation import Segmentation
from incontext.labels.color_mask import Rgb
from incontext.labels.coloring import PALETTE, Coloring
from incontext.labels.encodings import UNKNOWN, IdMap, Labels
from incontext.labels.partial import shrink
from incontext.model import VotingModel
from incontext.model.encoded_prompt import EncodedPrompt
from incontext.video.checks import Check
from incontext.video.policies import Decision, MemoryPolicy, SegGPTPolicy

# Whole frames whose tokens a frame attends to, annotated and remembered ones together.
THIN_TO = 4
# The same of checkpoints whose examples vote, if frames are remembered; of these each keeps half of
# what an annotated frame keeps, whose labels are certain and which shows most of what they do. Six
# DAVIS clips are as good as with four whole frames (`python -m eval video`).
VOTING_THIN_TO, RECENT_SHARE = 2, 0.5
EXAMPLES = -1  # stands for the examples of other images among numbers of frames


@dataclass(eq=False)
class _Frame:
    """A frame at the model's size, encoded for each pass; not encoded yet: []."""

    index: int
    example: Example
    encoded: list[EncodedPrompt]


class Memory:
    """Examples of a video so far, as a prompt for its next frame.

    All annotated frames are among them, and of the predicted ones the last K that the policy
    admits. Each is encoded once, and again only if ids come or go or a frame is annotated.

    Args:
        base: a prompt, such as a tuned one, to go along with all frames.
        examples: other images, to go along with all frames.
        names: of ids.

    Raises:
        InputError: a prompt that frames cannot be added to.
    """

    def __init__(
        self, predictor: Predictor, policy: MemoryPolicy, kind: str, base: Prompt | None = None,
        examples: Sequence[Example] = (), names: Mapping[int, str] | None = None,
    ) -> None:  # fmt: skip
        self.predictor, self.policy, self.base = predictor, policy, base
        self.kind = base.kind if base else kind
        self.names = dict(names or {})
        if base:
            _check_base(base, policy)
        maps = align_labels(examples) if len(examples) else []
        self.examples = [
            self._shrink(Example.from_labels(e.image, m))
            for e, m in zip(examples, maps, strict=True)
        ]
        self.maps = maps  # of the examples, at their own size
        self.annotated: dict[int, Example] = {}
        # Ids of annotated frames, also those without a pixel at the model's size.
        self._present: dict[int, list[int]] = {}
        # Ids that annotated frames, and the examples, may show where they are blank.
        self._doubtful_ids: dict[int, set[int]] = {}
        self._colors: dict[int, Rgb] = {}
        self.recent: deque[_Frame] = deque(maxlen=policy.keep)
        self.changes = 0  # of the predicted frames
        self.encodings = 0  # of frames, in one pass each
        self._annotated_encodings: list[EncodedPrompt] | None = None  # by pass; None: outdated
        self._passes: tuple[Pass, ...] | None = None  # of `prompt`; None: outdated
        votes = policy.keep > 0 and isinstance(predictor.model, VotingModel)
        self._thin_to, self._recent_share = (
            (VOTING_THIN_TO, RECENT_SHARE) if votes else (THIN_TO, 1.0)
        )
        self.colorings: list[Coloring] = []  # of the passes
        # IoU by id of annotated frames that are segmented with themselves as the example.
        self._self_ious: dict[int, dict[int, float]] = {}
        self._checked_frame: _Frame | None = None  # the last whose cycle consistency was checked
        self.frame = 0  # number of the one observed last
        self.last_check: Check | None = None  # since examples or ids changed
        self.checks = 0  # so far

    @property
    def ids(self) -> list[int]:
        """Ids of the base, the examples and the annotated frames, ascending."""
        ids = set(self.base.ids if self.base else ())
        ids = ids.union(*self._present.values(), *(e.labels.present for e in self.examples))
        return sorted(ids)

    @property
    def _permanent(self) -> list[Example]:
        """The examples that are never dropped."""
        return [*self.examples, *self.annotated.values()]

    @property
    def colors(self) -> dict[int, Rgb]:
        """Colors for people, of every id: the base's or the labels' own, else one that is free; an
        id keeps its color."""
        own_colors = {i: c for e in self._permanent for i, c in e.labels.colors.items()}
        own_colors |= self.base.colors if self.base else {}
        for index in self.ids:
            if index not in self._colors:
                used_colors = {*self._colors.values(), *own_colors.values()}
                free = [c for c in PALETTE.colors[1:] if c not in used_colors]  # without white
                color = own_colors.get(index)
                self._colors[index] = color or (free[0] if free else PALETTE.color(index))
        return {index: self._colors[index] for index in self.ids}

    def annotate(self, index: int, example: Example, new_ids: Collection[int] = ()) -> None:
        """Add a frame with labels, in place of an earlier annotation of the same frame.

        Args:
            new_ids: those that nobody looked for before: what is blank in earlier labels may be
                them.

        Raises:
            InputError: an id has different colors in two palettes.
        """
        check_palettes([*self.maps, *(e.labels for e in self.annotated.values()), example.labels])
        unseen_ids = set(new_ids) - set(self.ids)
        if unseen_ids:
            for number in (EXAMPLES, *self.annotated):
                self._doubtful_ids.setdefault(number, set()).update(unseen_ids)
            self.recent.clear()  # they were predicted without knowledge of these ids
        self._doubtful_ids.pop(index, None)
        self.annotated[index] = self._shrink(example)
        self._present[index] = example.labels.present
        self._self_ious = {}  # also of other frames: the passes may have other ids now
        self.recent = deque((f for f in self.recent if f.index != index), self.policy.keep)
        self._annotated_encodings, self.last_check = None, None
        self._count_change()

    def _count_change(self) -> None:
        """Count a change, after which the passes are to be made anew."""
        self.changes += 1
        self._passes = None

    def observe(self, index: int, image: Image.Image, result: Segmentation) -> Decision:
        """Let the policy decide on a predicted frame, and remember it accordingly."""
        self.frame, self._checked_frame = index, None
        if not self.policy.keep:
            return Decision(result)
        decision = self.policy.decide(image, result, self)
        if decision.labels is not None:
            self.remember(index, image, decision.labels)
        if decision.check:
            self.last_check = decision.check
            self.checks += 1
        return decision

    def remember(self, index: int, image: Image.Image, ids: IdMap) -> None:
        """Remember a predicted frame with these labels, of any size."""
        example, checked = self._example(image, ids), self._checked_frame
        self._checked_frame = None
        # What was encoded for the check need not be encoded again.
        same = checked and np.array_equal(checked.example.labels.ids, example.labels.ids)
        self.recent.append(_Frame(index, example, checked.encoded if checked and same else []))
        self._count_change()

    def _example(self, image: Image.Image, ids: IdMap) -> Example:
        """Return a frame at the model's size."""
        return Example.from_labels(self._resize(image), Labels(shrink(ids, self.predictor.size)))

    def _encode_frame(self, index: int, example: Example) -> _Frame:
        # Each frame has its own pattern of which tokens are kept: by its distance from annotated
        # ones, so that a video and its reverse are alike.
        distance = min((abs(index - number) for number in self.annotated), default=index)
        number = len(self._permanent) + distance
        encoded = [
            self._encode([example], coloring, number, self._recent_share)
            for coloring in self.colorings
        ]
        return _Frame(index, example, encoded)

    def cycle_consistency(self, image: Image.Image, ids: IdMap) -> dict[int, float]:
        """Return how well a frame, as the only example, reproduces annotated frames.

        Args:
            ids: (H, W), predicted for the frame.

        Returns:
            For each id the IoU on the nearest annotated frame that shows it, as a share of what
            that frame reaches on itself, 0–1. Ids that no annotated frame shows are left out.
        """
        ids_by_frame: dict[int, list[int]] = {}
        for index in np.unique(ids[ids > 0]).tolist():
            frames = [n for n, e in self.annotated.items() if (e.labels.ids == index).any()]
            if frames:
                nearest = min(frames, key=lambda number: abs(number - self.frame))
                ids_by_frame.setdefault(nearest, []).append(index)
        if not ids_by_frame:
            return {}
        self._checked_frame = frame = self._encode_frame(self.frame, self._example(image, ids))
        shares: dict[int, float] = {}
        for number, frame_ids in ids_by_frame.items():
            target = self.annotated[number]
            if number not in self._self_ious:
                self._self_ious[number] = self._ious(self._encode_frame(0, target), target)
            best, ious = self._self_ious[number], self._ious(frame, target)
            shares |= {i: min(1.0, ious[i] / best[i]) for i in frame_ids if best.get(i)}
        return shares

    def _ious(self, frame: _Frame, target: Example) -> dict[int, float]:
        """Segment `target` with a frame as the only example; returns the IoU of each id, over the
        pixels with known labels."""
        pairs = zip(self.colorings, frame.encoded, strict=True)
        passes = tuple(Pass(coloring, encoded) for coloring, encoded in pairs)
        labels = self.predictor.predict(target.image, self._assemble(passes, 1)).labels
        ious, valid_mask = {}, target.labels.ids != UNKNOWN
        for index in target.labels.present:
            truth, mask = target.labels.ids == index, (labels == index) & valid_mask
            ious[index] = float((truth & mask).sum() / max(1, (truth | mask).sum()))
        return ious

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
        for frame in self.recent:
            frame.example = _without(frame.example, index)
        self._present = {n: [i for i in p if i != index] for n, p in self._present.items()}
        self.names.pop(index, None)
        self._annotated_encodings, self.last_check, self._self_ious = None, None, {}
        self._count_change()

    def forget_recent(self) -> None:
        """Drop the predicted frames."""
        self.recent.clear()
        self.last_check = None
        self._count_change()

    def prompt(self) -> Prompt:
        """Return all of it as a prompt.

        Raises:
            InputError: nothing shows an object.
        """
        if not self.ids:
            raise InputError("nothing to look for: no labels with an object, and no prompt")
        if self._passes is None:
            self._passes = self._encode_passes()
        count = len(self._permanent) + len(self.recent) + (self.base.examples if self.base else 0)
        return self._assemble(self._passes, count)

    def _encode_passes(self) -> tuple[Pass, ...]:
        """Encode what is not encoded yet, and join all of it by pass."""
        if self._annotated_encodings is None:
            self._encode_annotated()
        assert self._annotated_encodings is not None
        for frame in self.recent:
            frame.encoded = frame.encoded or self._encode_frame(frame.index, frame.example).encoded
        passes, base_passes = [], self.base.passes if self.base else ()
        for number, coloring in enumerate(self.colorings):
            parts = [part.tensors for part in base_passes[number : number + 1]]
            parts += self._annotated_encodings[number : number + 1]
            parts += [frame.encoded[number] for frame in self.recent]
            passes.append(Pass(coloring, EncodedPrompt.concat(parts)))
        return tuple(passes)

    def _assemble(self, passes: tuple[Pass, ...], examples: int) -> Prompt:
        """Return passes as a prompt of this memory's ids."""
        names = {i: str(i) for i in self.ids} | (self.base.names if self.base else {}) | self.names
        return Prompt(
            tuple(self.ids), self.colors, names, self.kind, examples, passes,
            self.predictor.checkpoint, model_name=self.predictor.name,
        )  # fmt: skip

    def _encode_annotated(self) -> None:
        """Make the colorings and encode the annotated frames; `prompt` encodes predicted ones."""
        base = self.base
        own_ids = [i for i in self.ids if not (base and i in base.ids)]
        self.colorings = [part.coloring for part in base.passes] if base else []
        self.colorings += assign_colorings(own_ids, self.policy.per_pass, None) if own_ids else []
        self._annotated_encodings = [
            self._encode(examples, coloring)
            for coloring in self.colorings
            if (examples := self._examples_for(coloring.ids))
        ]
        for frame in self.recent:
            frame.encoded = []

    def _examples_for(self, ids: Collection[int]) -> list[Example]:
        """Return the permanent examples, unknown where they are blank and may show these ids."""
        numbers = [*(EXAMPLES for _ in self.examples), *self.annotated]
        examples = []
        for number, example in zip(numbers, self._permanent, strict=True):
            if self._doubtful_ids.get(number, set()) & set(ids):
                ids_or_unknown = np.where(example.labels.ids == 0, UNKNOWN, example.labels.ids)
                labels = replace(example.labels, ids=ids_or_unknown)
                examples.append(Example.from_labels(example.image, labels))
            else:
                examples.append(example)
        return examples

    def _encode(
        self, examples: Sequence[Example], coloring: Coloring, start: int = 0, share: float = 1.0
    ) -> EncodedPrompt:
        """Encode examples, the first being number `start`, with a share of the tokens of an
        annotated one."""
        self.encodings += len(examples)
        count = len(self._permanent) + self._recent_share * self.policy.keep
        keep_ratio = share * min(1.0, self._thin_to / max(1.0, count))
        complete = not self.policy.keep and not self.base
        return self.predictor.encode(
            examples, coloring, kind=self.kind, keep_ratio=keep_ratio,
            precompute_targets=complete, start=start,
        )  # fmt: skip

    def _shrink(self, example: Example) -> Example:
        """Return an example at the model's size."""
        labels = replace(example.labels, ids=shrink(example.labels.ids, self.predictor.size))
        return Example.from_labels(self._resize(example.image), labels)

    def _resize(self, image: Image.Image) -> Image.Image:
        size = (self.predictor.size, self.predictor.size)
        return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=None)

    def state(self) -> dict[str, Any]:
        """Return the predicted frames and the last check for `restore`: arrays by name."""
        size = self.predictor.size
        pictures = [np.asarray(frame.example.image) for frame in self.recent]
        ids = [frame.example.labels.ids for frame in self.recent]
        return {
            "indices": np.array([frame.index for frame in self.recent], np.int64),
            "pictures": np.array(pictures, np.uint8).reshape(-1, size, size, 3),
            "ids": np.array(ids, np.int32).reshape(-1, size, size),
            "check": self.last_check.to_array() if self.last_check else np.empty(0),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self.forget_recent()
        for index, pixels, ids in zip(
            state["indices"], state["pictures"], state["ids"], strict=True
        ):
            self.remember(int(index), Image.fromarray(pixels), ids)
        check = state.get("check", ())  # earlier versions kept none
        self.last_check = Check.from_array(check) if len(check) else None


def _check_base(base: Prompt, policy: MemoryPolicy) -> None:
    """Raise InputError for a prompt that frames cannot be added to."""
    if base.example_index:
        raise InputError(
            "a prompt made with nearest=… sees other examples in every frame; make it without"
        )
    palettes = [part.coloring.colors for part in base.passes]
    if isinstance(policy, SegGPTPolicy) and any(p != ((255, 255, 255),) for p in palettes):
        raise InputError(
            "the official rule knows one object a painting, in white; make the prompt with "
            "classes_per_pass=1"
        )
    # Joint attention keeps tokens, which frames do not have; see `EncodedPrompt.tensors`.
    if any("known.shown" in part.encoded_prompt.tensors() for part in base.passes):
        raise InputError(
            "a prompt of a checkpoint with joint attention cannot be joined by frames; pass its "
            "examples instead (--example)"
        )


def _without(example: Example, index: int) -> Example:
    ids = np.where(example.labels.ids == index, 0, example.labels.ids)
    colors = {i: c for i, c in example.labels.colors.items() if i != index}
    return Example.from_labels(example.image, Labels(ids, colors))
