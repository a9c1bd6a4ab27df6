"""Pascal VOC: SegmentationClass/NAME.png as palette PNG, JPEGImages and labelmap.txt."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from incontext.errors import InputError, first_line, parse_whole
from incontext.files import read_text
from incontext.formats.annotated_image import AnnotatedImage, ImageFolder, Size
from incontext.formats.output import check_not_source, check_text, place_image
from incontext.formats.results import LabelledImage
from incontext.images.folder import list_images
from incontext.images.image_file import open_header
from incontext.inference.segmentation import label_image, write_image, write_text
from incontext.labels.color_mask import MAX_ID, Rgb
from incontext.labels.encodings import IGNORE_INDEX, IdMap, read_labels

HEAD = "# label:color_rgb:parts:actions"
IDS = "# ids:"  # a comment for other readers: the ids of the lines below
UNUSED = "unused-{}"  # name of a line that only keeps the numbers of the lines right
MASKS, IMAGES = "SegmentationClass", "JPEGImages"
LABEL_MAP = "labelmap.txt"
IMAGE_LIST = "ImageSets/Segmentation/default.txt"


def write(results: Iterable[LabelledImage], out: Path) -> Path:
    """Write masks with the ids as they are, 16-bit for ids over 255; images are linked, or
    written upright.

    Raises:
        InputError: an image is gone.
        OSError: it cannot be written.
    """
    names: dict[int, str] = {0: "background"}
    colors: dict[int, Rgb] = {0: (0, 0, 0)}
    image_names = []
    for result in results:
        names |= {i: _check_name(name) for i, name in result.names.items()}
        check_text(result.name, "picture")
        colors |= result.colors
        path = out / MASKS / f"{result.name}.png"
        check_not_source(path, result.source)
        wide = max(result.names, default=0) > 255
        write_image(label_image(result.labels, result.colors, wide), path)
        place_image(result.source, out / IMAGES / result.name)
        image_names.append(result.name)
    write_text(out / IMAGE_LIST, "".join(f"{name}\n" for name in image_names))
    used_colors = set(colors.values())
    # Other readers take the number of a line for the index, which only 8-bit masks have.
    for index in range(1, max(names) if max(names) <= IGNORE_INDEX else 0):
        if index not in names:
            names[index] = UNUSED.format(index)
            candidates = ((n, 1, index) for n in range(256))
            colors[index] = next(color for color in candidates if color not in used_colors)
    order = sorted(names)
    lines = [
        HEAD,
        f"{IDS} {' '.join(map(str, order))}",
        *(f"{names[i]}:{','.join(map(str, colors[i]))}::" for i in order),
    ]
    return write_text(out / LABEL_MAP, "".join(f"{line}\n" for line in lines))


def _check_name(name: str) -> str:
    """Return a name that fits into a line of the label map.

    Raises:
        InputError: it does not.
    """
    if len(name.splitlines()) > 1 or name.startswith("#") or name != name.strip():
        raise InputError(f"name {name!r}; accepted for VOC: one line that does not begin with #")
    return check_text(name, "name")


def read(path: Path, images: Path | None) -> Iterator[AnnotatedImage]:
    """Yield every mask of SegmentationClass, to any depth.

    Indices are ids, and 255 is unknown unless labelmap.txt names it. Masks in RGB need
    labelmap.txt, whose lines are then ids 0, 1, …

    Raises:
        InputError: no such folder, a mask without an image, a damaged label map.
    """
    masks = path / MASKS
    if not masks.is_dir():
        raise InputError(f"{path}: no folder {MASKS} in it")
    label_map = _LabelMap.read(path / LABEL_MAP)
    folder = ImageFolder(images or path / IMAGES)
    for mask in list_images(masks, suffixes=(".png",)).paths:
        try:
            image = folder.find_stem(str(mask.relative_to(masks).with_suffix("")))
            with open_header(mask, str(mask)) as mask_image:
                in_color = mask_image.mode not in ("P", "L", "1", "I", "I;16")
                palette = _palette(mask_image)
        except InputError as error:
            raise InputError(f"{mask}: {error}") from None
        except Exception as error:  # decoders raise nearly anything
            raise InputError(f"{mask}: damaged mask ({first_line(error)})") from None
        by_id = in_color or label_map.exact
        names = label_map.names if by_id else label_map.names_of(palette)
        colors = label_map.colors if by_id else palette
        read_mask = partial(_read_mask, mask, label_map, in_color, IGNORE_INDEX not in names)
        yield AnnotatedImage(str(mask), image, read_mask, names, colors)


def _read_mask(
    mask: Path, label_map: "_LabelMap", in_color: bool, ignore: bool, size: Size
) -> IdMap:
    """Read a mask as colors or as indices; `ignore`: 255 is unknown."""
    if in_color and not label_map.names:
        raise InputError("colors, and no labelmap.txt says what they mean")
    if in_color:
        return read_labels(mask, size, colors=label_map.colors).ids
    return read_labels(mask, size, ignore=IGNORE_INDEX if ignore else "none").ids


def _palette(image: Image.Image) -> dict[int, Rgb]:
    flat = (image.getpalette("RGB") or []) if image.mode == "P" else []
    rows = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return dict(enumerate((int(r), int(g), int(b)) for r, g, b in rows))


@dataclass(frozen=True)
class _LabelMap:
    """labelmap.txt: names and colors by id; `exact`: the file has the ids, else lines count."""

    names: dict[int, str]
    colors: dict[int, Rgb]
    exact: bool

    @classmethod
    def read(cls, path: Path) -> "_LabelMap":
        if not path.is_file():
            return cls({}, {}, False)
        names, colors, ids = list[str](), list[Rgb](), list[int]()
        try:
            for line in read_text(path).splitlines():
                if line.startswith(IDS):
                    ids = [parse_whole("id", i, 0, MAX_ID) for i in line.removeprefix(IDS).split()]
                elif line.strip() and not line.startswith("#"):
                    name, rgb = line.rsplit(":", 3)[0], line.rsplit(":", 3)[1]
                    red, green, blue = (
                        parse_whole("color", channel, 0, 255) for channel in rgb.split(",")
                    )
                    names.append(name)
                    colors.append((red, green, blue))
        except (ValueError, IndexError) as error:
            raise InputError(
                f"{path}: accepted: lines of NAME:r,g,b:: ({first_line(error)})"
            ) from None
        if ids and len(ids) != len(names):
            raise InputError(f"{path}: {len(ids)} ids for {len(names)} names")
        if len(set(ids)) < len(ids):
            raise InputError(f"{path}: an id with two names")
        rows = zip(ids or range(len(names)), names, colors, strict=True)
        objects = [row for row in rows if row[0] and row[1] != UNUSED.format(row[0])]
        return cls({i: n for i, n, _ in objects}, {i: c for i, _, c in objects}, bool(ids))

    def names_of(self, palette: dict[int, Rgb]) -> dict[int, str]:
        """Return names of a palette's indices by color; none for a color that two names share."""
        colors = list(self.colors.values())
        by_color = {c: self.names[i] for i, c in self.colors.items() if colors.count(c) == 1}
        return {i: by_color[c] for i, c in palette.items() if i and c in by_color}
