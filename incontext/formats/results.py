"""Results: labelled images as `incontext segment` wrote them, the source of every export."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from incontext.batch.inputs import is_edited
from incontext.batch.records import read_all, record_files
from incontext.errors import InputError, first_line, parse_whole
from incontext.formats.annotated_image import AnnotatedImage, ImageFolder, stored_labels
from incontext.images.image_file import open_file
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap

LOW_QUALITY = 0.2  # of a mask: it is mostly wrong, such as a few pixels where nothing is


class SegmentationLike(Protocol):
    """A `Segmentation`, or what was read back of one."""

    @property
    def labels(self) -> IdMap:
        """(H, W) int32, 0 = background."""

    @property
    def presence(self) -> Mapping[int, float]:
        """How sure the model is that each id is in the image, 0–1."""

    @property
    def quality(self) -> Mapping[int, float]:
        """Expected IoU of each id's mask, 0–1, where it is there."""

    @property
    def names(self) -> Mapping[int, str]:
        """Name of each id."""

    @property
    def colors(self) -> Mapping[int, Rgb]:
        """Color of each id."""


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """Labels of one image, read back from a folder of results.

    Attributes:
        name: what its files are called, without a suffix.
        source: the image file.
    """

    name: str
    source: Path
    labels: IdMap = field(repr=False)
    presence: dict[int, float]
    names: dict[int, str] = field(repr=False)
    colors: dict[int, Rgb] = field(repr=False)
    quality: dict[int, float] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """The image's file name, with the folders that tell it from others of the same name."""
        return str(Path(self.name).with_name(self.source.name))

    def masks(self) -> "Iterator[tuple[int, np.ndarray[tuple[int, int], np.dtype[np.bool_]]]]":
        """Yield each id that the image shows and its mask, (H, W) bool."""
        for index in self.presence:
            mask = self.labels == index
            if mask.any():
                yield index, mask


@dataclass
class Selection:
    """What of some results is exported, and a count of it.

    Attributes:
        min_quality: expected IoU, 0–1, below which a mask is left out; results of earlier versions
            have none, and are kept.
        names: of ids, in place of those that the results have.
        images, masks: how many were exported.
        low: masks among them whose quality is below `LOW_QUALITY`.
        left_out: masks that were not exported.
    """

    min_quality: float = 0.0
    names: Mapping[int, str] = field(default_factory=dict)
    images: int = 0
    masks: int = 0
    low: int = 0
    left_out: int = 0

    def apply(self, results: Iterable[LabelledImage]) -> Iterator[LabelledImage]:
        """Yield results with the names, and without the masks that are left out.

        Raises:
            InputError: a name for an id that the results do not have.
        """
        for result in results:
            unknown = sorted(set(self.names) - set(result.names))
            if unknown:
                raise InputError(f"a name for id {unknown[0]}; the results have {[*result.names]}")
            labels = result.labels
            for index, _ in result.masks():
                quality = result.quality.get(index, 1.0)
                if quality < self.min_quality:
                    labels = np.where(labels == index, 0, labels)
                    self.left_out += 1
                else:
                    self.masks += 1
                    self.low += quality < LOW_QUALITY
            self.images += 1
            yield replace(result, labels=labels, names=result.names | dict(self.names))


def read_results(folder: str | Path, *, images_elsewhere: bool = False) -> Iterator[LabelledImage]:
    """Yield all results in a folder that `incontext segment` wrote, sorted by name.

    Results of shards and of runs that are still at work are included.

    Args:
        images_elsewhere: the recorded images do not matter.

    Raises:
        InputError: no such results, a label file that is gone or damaged, or an image that was
            edited since it was segmented.
    """
    folder = Path(folder)
    if not any(path.is_file() for group in record_files(folder) for path in group):
        raise InputError(f"{folder}: no results.json; accepted: a folder of `incontext segment`")
    ids, records = read_all(folder)
    try:
        names = {int(i): str(about["name"]) for i, about in ids.items()}
        colors = {int(i): _rgb(about["color"]) for i, about in ids.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{folder}: results are damaged, or not of `incontext segment` ({first_line(error)})"
        ) from None
    entries = {name: _parse_record(folder, name, records[name]) for name in sorted(records)}
    for record in () if images_elsewhere else records.values():  # before anything is written
        _check_unedited(record["source"])
    for name, (source, file, presence, quality) in entries.items():
        labels = _read_labels(file)
        yield LabelledImage(name, source, labels, presence, names, colors, quality)


def _parse_record(
    folder: Path, name: str, record: Any
) -> tuple[Path, Path, dict[int, float], dict[int, float]]:
    """Return of the record of an image its file, that of its labels, presence and quality of ids.

    Raises:
        InputError: it is damaged.
    """
    try:
        ids = {int(i): about for i, about in record["ids"].items()}
        presence = {i: float(about["presence"]) for i, about in ids.items()}
        # Results of earlier versions have none.
        quality = {i: float(about["quality"]) for i, about in ids.items() if "quality" in about}
        source, file = Path(record["source"]["path"]), folder / record["files"]["labels"]
        return source, file, presence, quality
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder}: the entry of {name} is damaged ({type(error).__name__}: "
            f"{first_line(error)})"
        ) from None


def _rgb(color: Any) -> Rgb:
    red, green, blue = (parse_whole("color", channel, 0, 255) for channel in color)
    return red, green, blue


def _check_unedited(source: Mapping[str, Any]) -> None:
    """Raise InputError if an image is another one than that which was segmented."""
    try:
        edited = is_edited(source)
    except (OSError, ValueError, KeyError, TypeError):  # gone: formats that need the image say so
        return
    if edited:
        raise InputError(
            f"{source['path']}: changed since it was segmented, so its labels may not fit; segment "
            "it again"
        )


def _read_labels(path: Path) -> IdMap:
    try:
        return np.asarray(open_file(path)).astype(np.int32)
    except InputError as error:
        raise InputError(f"{path}: gone or damaged ({error})") from None


def read(path: Path, images: Path | None) -> Iterator[AnnotatedImage]:
    """Yield results as annotated images; images lie where they were, or by name in `images`.

    Raises:
        InputError: see `read_results`; an image that is gone.
    """
    folder = ImageFolder(images) if images else None
    for result in read_results(path, images_elsewhere=folder is not None):
        location = f"{path}: result {result.name}"
        try:
            image = folder.find(result.file_name) if folder else result.source
        except InputError as error:
            raise InputError(f"{location}: {error}") from None
        names = {i: name for i, name in result.names.items() if name != str(i)}
        read_labels = partial(stored_labels, result.labels)
        yield AnnotatedImage(location, image, read_labels, names, result.colors)
