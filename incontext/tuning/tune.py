"""Tuning: from labelled images to a prompt, and a comparison that tells whether it pays."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from incontext.errors import InputError, former_parameters
from incontext.evaluation.labelled_set import LabelledSet
from incontext.files import exclusive
from incontext.inference.example import Example
from incontext.inference.predictor import Predictor
from incontext.inference.prompt import KINDS
from incontext.model.int8 import Int8Linear
from incontext.tuning.run import Progress, TuningResult, TuningRun
from incontext.tuning.settings import Settings

DEFAULTS = Settings()


@former_parameters(tell="on_progress")
def tune(
    predictor: Predictor,
    examples: Iterable[Example] | LabelledSet,
    folder: str | Path | None = None,
    *,
    names: Mapping[int, str] | None = None,
    kind: str = "semantic",
    settings: Settings = DEFAULTS,
    thumbnail: bool = True,
    on_progress: Progress = lambda stage, done, total: None,
) -> TuningResult:
    """Learn a prompt from labelled images, the model frozen, and evaluate it on held-out ones.

    With ten images or more a quarter is held out; fewer are cross-validated, and the prompt is then
    learned from all of them, for as many steps as did best. It starts from the best few examples,
    or from 16 of all.

    Args:
        examples: two or more; or a `LabelledSet` of the model's size.
        folder: where the state is kept, so that a run that was killed goes on to the same result.
        names: of ids.
        kind, thumbnail: see `Predictor.prompt`.
        on_progress: called with the stage, and how much of it is done, of how much.

    Raises:
        InputError: too few examples, a model that cannot be tuned, a folder with another run.
    """
    if kind not in KINDS:
        raise InputError(f"kind {kind!r}; accepted: {', '.join(KINDS)}")
    int8 = any(isinstance(m, Int8Linear) for m in predictor.model.modules())
    if predictor.dtype != torch.float32 or int8:
        raise InputError("tuning computes in float32; load the checkpoint with that dtype")
    dataset = LabelledSet.coerce(examples, predictor.size, names)
    dataset = dataset.subset(_usable_images(dataset))
    with freeze(predictor), exclusive(folder):
        return TuningRun(predictor, dataset, kind, settings, folder, on_progress).result(thumbnail)


def _usable_images(dataset: LabelledSet) -> list[int]:
    """Return the images with any known label.

    Raises:
        InputError: fewer than two of them show an object.
    """
    count = len(dataset.indices_with_objects())
    if count < 2:
        raise InputError(
            f"{count} of {len(dataset)} pictures show an object of a pixel or more at "
            f"{dataset.size} × {dataset.size}; tuning needs two or more"
        )
    return dataset.indices_with_labels()


@contextmanager
def freeze(predictor: Predictor) -> Iterator[None]:
    """Turn off gradients of the model's parameters inside the block."""
    before = [p.requires_grad for p in predictor.model.parameters()]
    try:
        predictor.model.requires_grad_(False)
        yield
    finally:
        for parameter, requires_grad in zip(predictor.model.parameters(), before, strict=True):
            parameter.requires_grad_(requires_grad)
