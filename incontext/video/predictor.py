"""Video predictor: labels on some frames, results for all frames, the same ids throughout."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from incontext.checkpoints import location
from incontext.errors import InputError, former_attributes, former_parameters
from incontext.inference.example import Example
from incontext.inference.predictor import Predictor
from incontext.inference.prompt import KINDS, Prompt
from incontext.labels.encodings import Labels, LabelsLike
from incontext.model import VotingModel
from incontext.model.votes.features import FeatureCache
from incontext.video.annotations import Annotation, labels_by_frame
from incontext.video.frames import open_frames
from incontext.video.memory import Memory
from incontext.video.policies import CycleConsistencyPolicy, MemoryPolicy
from incontext.video.track import Track

DIRECTIONS = ("forward", "backward", "both")
LABEL_OPTIONS = {"colors", "ignore", "threshold", "unlabelled", "negative"}  # those of `Example`

__getattr__ = partial(former_attributes(Added="NewObjects"), sys.modules[__name__])


class VideoPredictor:
    """Segments frames with a `Predictor` into the ids of the labels given for some of them.

    Args:
        policy: which predicted frames are remembered, see `incontext.video.policies`.
        kind: "instance" (the very objects) or "semantic" (all of their class).

    Raises:
        InputError: an unknown kind.
    """

    @former_parameters(rule="policy")
    def __init__(
        self, predictor: Predictor, *, policy: MemoryPolicy | None = None, kind: str = "instance"
    ) -> None:
        if kind not in KINDS:
            raise InputError(f"kind {kind!r}; accepted: {', '.join(KINDS)}")
        self.predictor, self.policy, self.kind = predictor, policy or CycleConsistencyPolicy(), kind
        if isinstance(predictor.model, VotingModel) and predictor.model.feature_cache is None:
            predictor.model.feature_cache = FeatureCache()

    __getattr__ = former_attributes(rule="policy")

    @classmethod
    @former_parameters(rule="policy")
    def from_pretrained(
        cls, source: str | Path = location.DEFAULT, *, policy: MemoryPolicy | None = None,
        kind: str = "instance", **options: Any,
    ) -> "VideoPredictor":  # fmt: skip
        """Load a bundled, local or hub checkpoint; options of `Predictor.from_pretrained`."""
        return cls(Predictor.from_pretrained(source, **options), policy=policy, kind=kind)

    def track(
        self,
        frames: Any,
        labels: "LabelsLike | Labels | Mapping[int, Annotation] | None" = None,
        *,
        prompt: Prompt | str | Path | None = None,
        examples: Sequence[Example] = (),
        names: Mapping[int, str] | None = None,
        direction: str | None = None,
        start: int | None = None,
        **label_options: Any,
    ) -> Track:
        """Follow objects through frames: an iterator of (index, `Segmentation`).

        Args:
            frames: see `incontext.video.frames.open_frames`.
            labels: of the first frame, or {frame number from 0 on: labels}; see `read_labels`.
                They are the result for these frames, and complete: an id that they lack is absent
                there. `NewObjects(labels)` names new objects only. Where labels are unknown the
                model's prediction stands.
            prompt: of this predictor, or a file, to go along with every frame: a tuned one, say.
            examples: other images with labels, to go along likewise. With a prompt or examples
                labels may be left out.
            names: of ids.
            direction: "forward" from the first labelled frame on (without labels: from the first
                frame), "backward" from the last one down to frame 0, or "both": forward, then from
                the first labelled frame down. None or "auto": "both" if frames come before the
                first labelled one and can be read again, else "forward".
            start: the frame to begin with, instead of the first labelled one ("backward": the
                last one). After a correction, frames before it need not be segmented again.
            label_options: options of `Example` for the labels.

        Raises:
            InputError: frames or labels that cannot be used, or no such frame.
        """
        direction = None if direction == "auto" else direction
        if direction is not None and direction not in DIRECTIONS:
            raise InputError(f"direction {direction!r}; accepted: auto, {', '.join(DIRECTIONS)}")
        unknown = sorted(set(label_options) - LABEL_OPTIONS)
        if unknown:
            raise TypeError(
                f"track() knows no {unknown[0]}; a rule of memory goes to VideoPredictor(policy=…)"
            )
        if isinstance(prompt, (str, Path)):
            prompt = self.predictor.load_prompt(prompt)
        if prompt is not None:
            self.predictor.check_prompt(prompt)
            prompt = prompt.to(self.predictor.device)
        memory = Memory(self.predictor, self.policy, self.kind, prompt, examples, names)
        annotations = labels_by_frame(labels)
        if not annotations and not memory.ids:
            raise InputError("nothing to look for: pass labels of a frame, a prompt or examples")
        source = open_frames(frames)
        return Track(self.predictor, source, memory, annotations, direction, label_options, start)
