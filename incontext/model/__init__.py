"""The masked image model: tensors in, tensors out; no files, no pictures, no numpy."""

from incontext.model.config import SIZES, Config
from incontext.model.seggpt import SegGPT, painting_loss

__all__ = ["SIZES", "Config", "SegGPT", "painting_loss"]
