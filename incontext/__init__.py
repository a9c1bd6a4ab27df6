"""In-context visual segmentation: show examples with masks, get masks for new pictures."""

from incontext.color import Palette
from incontext.errors import InputError
from incontext.predictor import Predictor
from incontext.prompt import Example, Prompt
from incontext.segmentation import Segmentation

__version__ = "0.1.0"

__all__ = ["Example", "InputError", "Palette", "Predictor", "Prompt", "Segmentation"]
