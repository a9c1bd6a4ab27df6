"""In-context visual segmentation: show examples with masks, get masks for new pictures."""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from incontext.errors import InputError
    from incontext.evaluation.doctor import examine
    from incontext.evaluation.doctor_report import report_lines, report_page
    from incontext.evaluation.labelled_set import LabelledSet
    from incontext.formats import export
    from incontext.formats.coco import Coco
    from incontext.formats.examples import read_examples
    from incontext.images.image import read_image
    from incontext.inference.evidence import Evidence
    from incontext.inference.example import Example
    from incontext.inference.onnx.predictor import OnnxPredictor
    from incontext.inference.predictor import Predictor
    from incontext.inference.prompt import Prompt
    from incontext.inference.segmentation import Segmentation
    from incontext.labels.coloring import Palette
    from incontext.tuning.settings import Settings
    from incontext.tuning.tune import tune
    from incontext.video.frames import open_frames
    from incontext.video.overlay import write_overlay
    from incontext.video.predictor import VideoPredictor

__version__ = "0.2.0"

__all__ = [
    "Coco",
    "Evidence",
    "Example",
    "InputError",
    "LabelledSet",
    "OnnxPredictor",
    "Palette",
    "Predictor",
    "Prompt",
    "Segmentation",
    "Settings",
    "VideoPredictor",
    "examine",
    "export",
    "open_frames",
    "read_examples",
    "read_image",
    "report_lines",
    "report_page",
    "tune",
    "write_overlay",
]  # fmt: skip

_HOMES = {
    "Evidence": "inference.evidence",
    "Example": "inference.example", "InputError": "errors", "Palette": "labels.coloring",
    "OnnxPredictor": "inference.onnx.predictor", "Predictor": "inference.predictor",
    "Prompt": "inference.prompt",
    "Segmentation": "inference.segmentation", "LabelledSet": "evaluation.labelled_set",
    "examine": "evaluation.doctor", "VideoPredictor": "video.predictor", "tune": "tuning.tune",
    "Coco": "formats.coco", "export": "formats", "Settings": "tuning.settings",
    "read_image": "images.image", "read_examples": "formats.examples",
    "open_frames": "video.frames", "report_lines": "evaluation.doctor_report",
    "report_page": "evaluation.doctor_report", "write_overlay": "video.overlay",
}  # fmt: skip
_FORMER = {"Pool": "LabelledSet"}  # names that go with the next release


def __getattr__(name: str) -> object:
    """Import public names on first use, so that the command line starts without torch."""
    if name in _FORMER:
        text = f"{name} is now called {_FORMER[name]}; the former name goes with the next release"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return __getattr__(_FORMER[name])
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"incontext.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
