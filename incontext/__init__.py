"""In-context visual segmentation: show examples with masks, get masks for new pictures."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from incontext.color import Palette
    from incontext.doctor import examine
    from incontext.doctor_report import report_lines, report_page
    from incontext.errors import InputError
    from incontext.example import Example
    from incontext.formats import export
    from incontext.formats.coco import Coco
    from incontext.formats.examples import read_examples
    from incontext.image import read_image
    from incontext.pool import Pool
    from incontext.predictor import Predictor
    from incontext.prompt import Prompt
    from incontext.segmentation import Segmentation
    from incontext.sources import open_frames
    from incontext.tuner import Settings
    from incontext.tuning import tune
    from incontext.video import VideoPredictor
    from incontext.video_overlay import write_overlay

__version__ = "0.1.0"

__all__ = [
    "Coco",
    "Example",
    "InputError",
    "Palette",
    "Pool",
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
    "Example": "example", "InputError": "errors", "Palette": "color", "Predictor": "predictor",
    "Prompt": "prompt", "Segmentation": "segmentation", "Pool": "pool", "examine": "doctor",
    "VideoPredictor": "video", "tune": "tuning", "Coco": "formats.coco", "export": "formats",
    "Settings": "tuner", "read_image": "image", "read_examples": "formats.examples",
    "open_frames": "sources", "report_lines": "doctor_report", "report_page": "doctor_report",
    "write_overlay": "video_overlay",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Public names are imported on first use, so that the command line answers without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"incontext.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
