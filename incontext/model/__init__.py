"""The masked image model: tensors in, tensors out; no files, no pictures, no numpy."""

from incontext.model.config import SIZES, Config
from incontext.model.loss import painting_loss
from incontext.model.tokens.seggpt import SegGPT
from incontext.model.votes.voting import VotingModel

Model = SegGPT | VotingModel


def assemble(config: Config) -> Model:
    """Build the model of a config: a voting model if it has a backbone, else a token model."""
    return VotingModel(config) if config.backbone else SegGPT(config)


__all__ = ["SIZES", "Config", "Model", "SegGPT", "VotingModel", "assemble", "painting_loss"]
