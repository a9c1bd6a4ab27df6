"""How a checkpoint is asked: its kind of prompt, how examples are combined, where it computes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eval.core.domains import domain, said_of
from eval.core.processes import Processes
from eval.core.protocol import Ids, Item
from eval.core.spatial import spatial
from incontext import Example, Predictor
from incontext.batch.targets import file_hash
from incontext.checkpoints.checkpoint import CONFIG, locate
from incontext.errors import InputError
from incontext.inference.predictor import DTYPES

ENSEMBLES = ("feature", "spatial")
KINDS = ("", "semantic", "instance")


@dataclass(frozen=True)
class Setting:
    """Of one evaluation. `kind` "": instance for the official model, as its own scripts have it,
    semantic for all others; `trained_on`: see `eval.core.domains.domain`."""

    checkpoint: str
    kind: str = ""
    ensemble: str = "feature"
    dtype: str = "float32"
    trained_on: str = ""

    def __post_init__(self) -> None:
        for name, value, accepted in (
            ("--ensemble", self.ensemble, ENSEMBLES), ("--kind", self.kind, KINDS),
            ("--dtype", self.dtype, tuple(DTYPES)),
        ):  # fmt: skip
            if value not in accepted:
                listed = ", ".join(name for name in accepted if name)
                raise InputError(f"{name} {value!r}; accepted: {listed}")
        if self.trained_on != "none":
            said_of(self.trained_on)

    def open(self, processes: Processes) -> Predictor:
        """The predictor of this process."""
        return Predictor.from_pretrained(
            self.checkpoint, dtype=DTYPES[self.dtype], device=processes.device
        )

    def kind_for(self, predictor: Predictor) -> str:
        """What `kind` comes to."""
        joint = predictor.model.config.example_attention == "joint"
        return self.kind or ("instance" if joint else "semantic")

    def about(self, predictor: Predictor) -> dict[str, Any]:
        """What tells results of this setting from others'."""
        weights = locate(self.checkpoint)
        config = weights.with_name(CONFIG)
        hashes = [file_hash(path) for path in (weights, config) if path.is_file()]
        said = {**asdict(self), "kind": self.kind_for(predictor)}
        return {**said, "weights": "-".join(hashes), "size": predictor.size}

    def domain(self, pictures: str) -> str:
        """Strict or in-domain, for whose pictures a dataset has."""
        return domain(self.checkpoint, pictures, self.trained_on)

    def shown(self, items: Sequence[Item], size: int) -> list[Example]:
        """Examples that show something, as one where the ensemble is spatial."""
        read = [Example(picture, ids, ignore=-1) for picture, ids in (i.read() for i in items)]
        there = [example for example in read if example.labels.present]
        if self.ensemble == "spatial" and len(there) > 1:
            return [spatial(there, size)]
        return there

    def answer(self, predictor: Predictor, items: Sequence[Item], picture: Any) -> Any:
        """Mask of the class of `items` on a picture, (H, W) bool."""
        examples = self.shown(items, predictor.size)
        if not examples:  # the class is nothing but unknown there
            return np.zeros((picture.height, picture.width), bool)
        prompt = predictor.prompt(examples, kind=self.kind_for(predictor), thumbnail=False)
        return predictor.predict(picture, prompt).mask(1)


def known(ids: Ids) -> tuple[Any, Any]:
    """Where the class is, and where nothing is known."""
    return ids == 1, ids < 0
