"""How a checkpoint is evaluated: kind of prompt, ensemble of examples, dtype, training data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eval.core.domains import domain, parse_sources
from eval.core.processes import Processes
from eval.core.protocol import Ids, Item
from eval.core.spatial import spatial_grid
from incontext import Example, Predictor
from incontext.batch.inputs import file_hash
from incontext.checkpoints.location import CONFIG, locate
from incontext.errors import InputError
from incontext.inference.precision import DTYPES

ENSEMBLES = ("feature", "spatial")
KINDS = ("", "semantic", "instance")


@dataclass(frozen=True)
class Setting:
    """Setting of one evaluation.

    Attributes:
        kind: "": instance for the official model, as its own scripts have it, semantic for others.
        trained_on: see `eval.core.domains.domain`.
    """

    checkpoint: str
    kind: str = ""
    ensemble: str = "feature"
    dtype: str = "float32"
    trained_on: str = ""

    def __post_init__(self) -> None:
        for option, value, accepted in (
            ("--ensemble", self.ensemble, ENSEMBLES), ("--kind", self.kind, KINDS),
            ("--dtype", self.dtype, tuple(DTYPES)),
        ):  # fmt: skip
            if value not in accepted:
                names = ", ".join(name for name in accepted if name)
                raise InputError(f"{option} {value!r}; accepted: {names}")
        if self.trained_on != "none":
            parse_sources(self.trained_on)

    def load_predictor(self, processes: Processes) -> Predictor:
        """Load the checkpoint on the device of this process."""
        return Predictor.from_pretrained(
            self.checkpoint, dtype=DTYPES[self.dtype], device=processes.device
        )

    def kind_for(self, predictor: Predictor) -> str:
        """Return the kind, the default resolved."""
        joint = predictor.model.config.example_attention == "joint"
        return self.kind or ("instance" if joint else "semantic")

    def run_settings(self, predictor: Predictor) -> dict[str, Any]:
        """Return what identifies results of this setting, hashes of the weights included."""
        weights = locate(self.checkpoint)
        config = weights.with_name(CONFIG)
        hashes = [file_hash(path) for path in (weights, config) if path.is_file()]
        fields = {**asdict(self), "kind": self.kind_for(predictor)}
        return {**fields, "weights": "-".join(hashes), "size": predictor.size}

    def domain(self, image_source: str) -> str:
        """Return "strict" or "in-domain: …" for a dataset's source of images."""
        return domain(self.checkpoint, image_source, self.trained_on)

    def read_examples(self, items: Sequence[Item], size: int) -> list[Example]:
        """Read the examples that show the class; a spatial ensemble joins them into one."""
        pairs = [item.read() for item in items]
        examples = [Example(image, ids, ignore=-1) for image, ids in pairs]
        examples = [example for example in examples if example.labels.present]
        if self.ensemble == "spatial" and len(examples) > 1:
            return [spatial_grid(examples, size)]
        return examples

    def segment(self, predictor: Predictor, items: Sequence[Item], image: Any) -> Any:
        """Return the mask of the class of `items` on an image, (H, W) bool."""
        examples = self.read_examples(items, predictor.size)
        if not examples:  # every example is unknown where the class is
            return np.zeros((image.height, image.width), bool)
        prompt = predictor.prompt(examples, kind=self.kind_for(predictor), thumbnail=False)
        return predictor.predict(image, prompt).mask(1)


def class_and_ignore_masks(ids: Ids) -> tuple[Any, Any]:
    """Split ids into the mask of the class and the mask of unknown pixels, (H, W) bool each."""
    return ids == 1, ids < 0
