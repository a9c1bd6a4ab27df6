"""Training as a JSON file describes it: the model to begin with, the sets, the run."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from incontext.checkpoints.checkpoint import compare, load, save
from incontext.checkpoints.location import DEFAULT
from incontext.checkpoints.pretrained import backbone_state, graft
from incontext.data.pictures import check_labelled, load_set
from incontext.errors import InputError
from incontext.model import Config, Model, SegGPT, VotingModel, assemble
from incontext.model.config import READING_FIELDS, READING_PARTS
from incontext.training.calibration import calibrate
from incontext.training.recipe import Run
from incontext.training.trainer import Trainer
from incontext.training.validation import Validation


def initial_model(config: Config, init: str | None = None) -> Model:
    """Build a model to train: with the backbone's pretrained weights, and with those of `init`.

    A voting model takes stem and copy path of a checkpoint of tokens, see `graft`, and all of one
    without a summary in its mixer, since the summary begins at zero; its calibration is left out.

    Raises:
        InputError: no package of the backbone's weights; `init` of another shape.
    """
    model = assemble(config)
    if isinstance(model, VotingModel):
        model.backbone.load_state_dict(backbone_state(config.backbone))
    before = load(init) if init else None
    if isinstance(model, VotingModel) and isinstance(before, SegGPT):
        graft(model, before)
    elif before is not None:
        check_same_shape(config, before.config, init)
        # What these heads learned holds for the weights that they were fitted to.
        others = {k: x for k, x in before.state_dict().items() if not k.startswith(READING_PARTS)}
        state = model.state_dict() | others
        problems = compare(model.state_dict(), state)
        if problems:  # relative position has tables of the picture's size
            raise InputError(f"--init {init}: {'; '.join(problems)}")
        model.load_state_dict(state)
    return model


def check_same_shape(config: Config, before: Config, init: str | None) -> None:
    """Raise InputError, naming the fields, unless weights of one config go into another."""
    free = {"image_size", *READING_FIELDS}
    if config.mixer_summary:  # it begins at zero where there was none
        free.add("mixer_summary")
    now = asdict(config)
    differences = [
        f"{name} is {value!r} there and {now[name]!r} in the recipe"
        for name, value in asdict(before).items()
        if name not in free and value != now[name]
    ]
    if differences:
        raise InputError(
            f"--init {init} has another shape than the recipe describes: {'; '.join(differences)}"
        )


def train_from_file(
    description: Path,
    sources: Sequence[Path],
    folder: Path,
    init: str | None = None,
    until: int | None = None,
    validation: Sequence[Path] = (),
    workers: int = 0,
) -> Path:
    """Train as a JSON file describes (see `incontext.training.recipe.Run`).

    Returns:
        The checkpoint with the averaged weights, in `folder`.

    Raises:
        InputError: see `Run.read` and `load_set`; a set without labels, `init` of another shape.
    """
    run = Run.read(description)
    torch.manual_seed(run.recipe.seed)
    model = initial_model(run.config, init)
    parts = [name for name, _ in model.named_children()]
    for part in run.recipe.frozen:
        if part not in parts:
            raise InputError(f"{description}: frozen part {part!r}; accepted: {', '.join(parts)}")
        model.get_submodule(part).requires_grad_(False)
    sets = [load_set(path, run.cache) for path in sources]
    for data, path in zip(sets, sources, strict=True):
        if not run.recipe.mixture.regions:  # which need no labels
            check_labelled(data, path)
    unknown = sorted(run.recipe.mixture.weights.keys() - {data.name for data in sets})
    if unknown:
        warnings.warn(
            f"{description}: weights of sets that are not given: {', '.join(unknown)}", stacklevel=2
        )
    size = run.config.image_size
    val_sets = [load_set(path, size) for path in validation]
    checks = [Validation(val_sets, count) for count in (1, 4)] if val_sets else []
    trainer = Trainer(model, sets, run.recipe, folder, checks, workers)
    trainer.run(until)
    return trainer.export()


def calibrate_from_files(
    checkpoint: str,
    sources: Sequence[Path],
    folder: Path,
    episodes: int,
    seed: int = 0,
    on_progress: Callable[[int], object] = lambda count: None,
) -> Path:
    """Calibrate a voting model by sets of labelled images, see `calibrate`.

    Sets whose ids mean nothing across images are left out.

    Returns:
        The new checkpoint, in `folder`.

    Raises:
        InputError: a checkpoint without votes, or a set without objects.
    """
    model = load(checkpoint)
    if not isinstance(model, VotingModel):
        raise InputError(f"{checkpoint} has no votes; accepted: voting models, such as {DEFAULT}")
    data = []
    for source in sources:
        loaded = load_set(source, model.config.image_size)
        if loaded.set_type == "semantic":
            check_labelled(loaded, source)
            data.append(loaded)
    calibrated = calibrate(model, data, episodes, seed=seed, on_progress=on_progress)
    return save(calibrated, folder, dtype=torch.float16)
