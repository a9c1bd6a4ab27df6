"""Pascal VOC: SegmentationClass/NAME.png as palette PNG, JPEGImages and labelmap.txt."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from incontext.errors import InputError, first_line
from incontext.formats.annotated_image import Folder, Found, Size
from incontext.formats.links import link
from incontext.formats.results import Labelled
from incontext.inference.segmentation import label_image, write_image, write_text
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap, Labels, read_labels

HEAD = "# label:color_rgb:parts:actions"
IDS = "# ids:"  # a comment for other readers: the ids of the lines below
UNUSED = "unused-{}"  # name of a line that is only there to be counted
MASKS, PICTURES = "SegmentationClass", "JPEGImages"
LISTED = "ImageSets/Segmentation/default.txt"
TAKEN = (MASKS, "labelmap.txt", LISTED)  # what `write` writes anew, beside pictures
VOID = 255  # unknown, unless the label map names it


def write(results: Iterable[Labelled], out: Path) -> Path:
    """Ids are what they are (16-bit for ids over 255); colors are those of the results. Pictures
    are linked.

    Raises:
        OSError: it cannot be written.
    """
    names: dict[int, str] = {0: "background"}
    colors: dict[int, Rgb] = {0: (0, 0, 0)}
    listed = []
    for one in results:
        names |= one.names
        colors |= one.colors
        path = out / MASKS / f"{one.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(label_image(one.labels, one.colors, max(one.names, default=0) > 255), path)
        link(one.source, out / PICTURES / f"{one.name}{one.source.suffix}")
        listed.append(one.name)
    used = set(colors.values())
    (out / LISTED).parent.mkdir(parents=True, exist_ok=True)
    write_text(out / LISTED, "".join(f"{name}\n" for name in listed))
    # Other readers take the number of a line for the index, which only 8-bit masks have.
    for index in range(1, max(names) if max(names) <= VOID else 0):
        if index not in names:
            names[index] = UNUSED.format(index)
            colors[index] = next(c for n in range(256) if (c := (n, 1, index)) not in used)
    order = sorted(names)
    lines = [HEAD, f"{IDS} {' '.join(map(str, order))}",
             *(f"{names[i]}:{','.join(map(str, colors[i]))}::" for i in order)]  # fmt: skip
    return write_text(out / "labelmap.txt", "".join(f"{line}\n" for line in lines))


def read(path: Path, images: Path | None) -> Iterator[Found]:
    """Every mask of SegmentationClass, to any depth. Indices are ids and 255 is unknown unless
    labelmap.txt names it; masks in RGB need labelmap.txt, whose lines are then ids 0, 1, …

    Raises:
        InputError: no such folder, a mask without a picture, a damaged label map.
    """
    masks = path / MASKS
    if not masks.is_dir():
        raise InputError(f"{path}: no folder {MASKS} in it")
    known = _Map.read(path / "labelmap.txt")
    folder = Folder(images or path / PICTURES)
    for mask in sorted(masks.rglob("*.png")):
        try:
            picture = folder.named(str(mask.relative_to(masks).with_suffix("")))
            with Image.open(mask) as opened:
                colored = opened.mode not in ("P", "L", "1", "I", "I;16")
                table = _palette(opened)
        except InputError as error:
            raise InputError(f"{mask}: {error}") from None
        except Exception as error:  # decoders raise nearly anything
            raise InputError(f"{mask}: damaged mask ({first_line(error)})") from None
        names = known.lines if colored or known.exact else known.named(table)
        colors = known.colors if colored or known.exact else table
        yield Found(str(mask), picture, partial(_read, mask, known, colored, VOID not in names),
                    names, colors)  # fmt: skip


def _read(mask: Path, known: "_Map", colored: bool, void: bool, size: Size) -> IdMap:
    if colored and not known.lines:
        raise InputError("colors, and no labelmap.txt says what they mean")
    read: Labels = (
        read_labels(mask, size, colors=known.colors)
        if colored
        else read_labels(mask, size, ignore=VOID if void else "none")
    )
    return read.ids


def _palette(image: Image.Image) -> dict[int, Rgb]:
    flat = (image.getpalette("RGB") or []) if image.mode == "P" else []
    rows = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return dict(enumerate((int(r), int(g), int(b)) for r, g, b in rows))


@dataclass(frozen=True)
class _Map:
    """labelmap.txt: names and colors by id; `exact`: the file says which ids, else they count."""

    lines: dict[int, str]
    colors: dict[int, Rgb]
    exact: bool

    @classmethod
    def read(cls, path: Path) -> "_Map":
        if not path.is_file():
            return cls({}, {}, False)
        names, colors, ids = list[str](), list[Rgb](), list[int]()
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.startswith(IDS):
                    ids = [int(i) for i in line.removeprefix(IDS).split()]
                elif line.strip() and not line.startswith("#"):
                    name, rgb = line.rsplit(":", 3)[0], line.rsplit(":", 3)[1]
                    red, green, blue = (int(part) for part in rgb.split(","))
                    names.append(name)
                    colors.append((red, green, blue))
        except (ValueError, IndexError) as error:
            raise InputError(
                f"{path}: accepted: lines of NAME:r,g,b:: ({first_line(error)})"
            ) from None
        if ids and len(ids) != len(names):
            raise InputError(f"{path}: {len(ids)} ids for {len(names)} names")
        order = ids or list(range(len(names)))
        rows = zip(order, names, colors, strict=True)
        kept = [row for row in rows if row[0] and row[1] != UNUSED.format(row[0])]
        return cls({i: n for i, n, _ in kept}, {i: c for i, _, c in kept}, bool(ids))

    def named(self, palette: dict[int, Rgb]) -> dict[int, str]:
        """Names of the indices of a palette, by color; none for a color that two names share."""
        colors = list(self.colors.values())
        by_color = {c: self.lines[i] for i, c in self.colors.items() if colors.count(c) == 1}
        return {i: by_color[c] for i, c in palette.items() if i and c in by_color}
