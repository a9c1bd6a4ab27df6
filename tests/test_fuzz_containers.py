"""A label map written in every container and encoding is read as the same ids at every entry.

INCONTEXT_FUZZ=10000 python -m pytest tests -k fuzz draws ten thousand of each.
"""

import io
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from incontext import Example, InputError, read_examples
from incontext.cli.examples import MaskOptions
from incontext.data.pictures import IGNORE_INDEX, read_pairs
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import read_labels
from tests.fuzzing import fuzz
from tests.mask_writers import pgm, png, tiff

pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("ignore")]

COLORS = np.random.default_rng(1).permutation(256 * 255)[:256, None] // (1, 256, 256) % 256
COLORS = np.concatenate([COLORS[:, :2], np.arange(256)[:, None]], 1).astype(np.uint8)
COLORS[0] = 0


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    memory = io.BytesIO()
    image.save(memory, kind, **options)
    return memory.getvalue()


def with_tifffile(values: np.ndarray, **options: object) -> bytes:
    memory = io.BytesIO()
    tifffile.imwrite(memory, values, metadata=None, **options)
    return memory.getvalue()


def in_palette(values: np.ndarray, kind: str) -> bytes:
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette(COLORS.tobytes())
    options = {"optimize": False} if kind == "GIF" else {}  # Pillow renumbers otherwise
    return saved(image, kind, **options)


# Container → what holds the highest id, and the suffix and content of a file of ids (H, W).
Writer = Callable[[np.ndarray], bytes]
CONTAINERS: dict[str, tuple[int, str, Writer]] = {
    **{f"png {b} bits": (2**b - 1, ".png", lambda v, b=b: png(v, b)) for b in (1, 2, 4, 8, 16)},
    **{
        f"png palette of {b} bits": (2**b - 1, ".png", lambda v, b=b: png(v, b, COLORS[: 2**b]))
        for b in (1, 2, 4, 8)
    },
    **{
        f"tiff {b} bits, photometric {p}": (2**b - 1, ".tif", lambda v, b=b, p=p: tiff(v, b, p))
        for b in (1, 2, 4, 8)
        for p in (0, 1)
    },
    "pgm of 20": (20, ".pgm", lambda v: pgm(v, 20)),
    "pgm of 1000": (1000, ".pgm", lambda v: pgm(v, 1000)),
    "plain pgm of 77": (77, ".pgm", lambda v: pgm(v, 77, plain=True)),
    "gif": (255, ".gif", lambda v: in_palette(v, "GIF")),
    "bmp": (255, ".bmp", lambda v: in_palette(v, "BMP")),
    "tiff palette": (255, ".tif", lambda v: in_palette(v, "TIFF")),
    "npy": (MAX_ID, ".npy", lambda v: _npy(v.astype(np.int64))),
}  # fmt: skip
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")
HIGHEST = {"u1": 255, "i1": 127, "i2": 32_767, "f2": 2048}


def _npy(values: np.ndarray) -> bytes:
    memory = io.BytesIO()
    np.save(memory, values)
    return memory.getvalue()


@st.composite
def mask_files(draw: st.DrawFn) -> tuple[np.ndarray, str, bytes]:
    """(H, W) values, and the suffix and content of a file that stores them."""
    name = draw(st.sampled_from([*CONTAINERS, *["tiff of a dtype"] * 8, "bool tiff"]))
    options: dict[str, object] = {}
    if name in CONTAINERS:
        highest, suffix, write = CONTAINERS[name]
    else:
        dtype = "bool" if name == "bool tiff" else draw(st.sampled_from(DTYPES))
        highest, suffix = 1 if dtype == "bool" else HIGHEST.get(dtype, MAX_ID), ".tif"
        options = {
            "byteorder": draw(st.sampled_from("<>")), "bigtiff": draw(st.booleans()),
            "compression": draw(st.sampled_from([None, "zlib"])),
            "photometric": draw(st.sampled_from(["minisblack", "miniswhite"])),
        }  # fmt: skip
        if dtype != "bool" and draw(st.booleans()):
            options["tile"] = (16, 16)
        if dtype == "bool":
            options.pop("compression")  # tifffile packs bits itself only without
        write = lambda v: with_tifffile(v.astype(dtype), **options)  # noqa: E731
    ids = draw(st.lists(st.integers(0, highest) | st.sampled_from([0, 1, highest]),
                        min_size=1, max_size=5))  # fmt: skip
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    chosen = draw(st.lists(st.sampled_from(ids), min_size=shape[0] * shape[1],
                           max_size=shape[0] * shape[1]))  # fmt: skip
    values = np.array(chosen).reshape(shape)
    return values, suffix, write(values)


def meaning(values: np.ndarray, file: bytes) -> np.ndarray | None:
    """Ids of values, or None where they can be read in two ways and must be refused."""
    present = set(np.unique(values).tolist())
    palette = b"PLTE" in file or file[:2] in (b"BM",) or file[:3] == b"GIF" or _tiff_palette(file)
    for white in (255, 65_535):
        if present <= {0, white} and white in present and not palette:
            return (values == white).astype(int)
    return None if 255 in present else values


def _tiff_palette(file: bytes) -> bool:
    if file[:4] not in (b"II*\0", b"MM\0*"):
        return False
    with tifffile.TiffFile(io.BytesIO(file)) as tif:
        return int(tif.pages[0].photometric) == 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("containers")


def entries(folder: Path, suffix: str, content: bytes, size: tuple[int, int]) -> Iterator:
    """Write a picture and its mask; yield names and functions of what reads them."""
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("images", "labels"):
        (folder / "set" / part).mkdir(parents=True)
    image, mask = folder / "set/images/a.png", folder / f"set/labels/a{suffix}"
    Image.new("RGB", size, (9, 99, 199)).save(image)
    mask.write_bytes(content)
    yield "--example", lambda: _only(MaskOptions(example=[f"{image}\0{mask}"]).files().read())
    yield "Example(path, path)", lambda: Example(image, mask).labels.ids
    yield "read_labels", lambda: read_labels(str(mask), size).ids
    if suffix == ".npy":
        yield "Example(path, array)", lambda: Example(image, np.load(mask)).labels.ids
    else:
        yield "Example(path, PIL)", lambda: Example(image, Image.open(mask)).labels.ids
    yield "set", lambda: _only(read_examples(folder / "set"))
    tar = folder / "set.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(folder / "set", ".")
    yield "tar", lambda: _only(read_examples(tar))
    yield "set for training", lambda: next(iter(read_pairs(folder / "set")))[2]


def _only(examples: "Iterator[Example] | list[Example]") -> np.ndarray:
    [example] = examples
    return example.labels.ids


@fuzz(80)
@given(drawn=mask_files())
def test_masks_are_read_alike(folder, drawn):
    values, suffix, content = drawn
    ids = meaning(values, content)
    for name, read in entries(folder, suffix, content, values.shape[::-1]):
        in_set = "set" in name or name == "tar"
        expected = ids
        if in_set:  # 255 is unknown there
            unknown = IGNORE_INDEX if name == "set for training" else -1
            expected = np.where(values == 255, unknown, values)
            if name == "set for training" and values.max() > 255:
                expected = None
            if name != "set for training" and set(np.unique(values)) <= {0, 255} != {0}:
                expected = None if 255 in values else values
        try:
            result = read()
        except Image.UnidentifiedImageError:  # of Pillow's own opening
            assert name.endswith("PIL)")
        except InputError as error:
            if expected is not None:
                pytest.fail(f"{name}: {error}")
        else:
            assert expected is not None, name
            assert np.array_equal(result, expected), name


@st.composite
def lossy_files(draw: st.DrawFn) -> tuple[str, bytes]:
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    values = (rng.random((6, 8)) > 0.5).repeat(8, 0).repeat(8, 1).astype(np.uint8) * 255
    image = Image.fromarray(values)
    quality = draw(st.sampled_from([30, 80, 95]))
    kind, suffix = draw(st.sampled_from([
        ("JPEG", ".jpg"), ("JPEG", ".png"), ("WEBP", ".webp"), ("AVIF", ".avif"),
        ("JPEG2000", ".jp2"), ("TIFF", ".tif"), ("WEBP", ".png"), ("MPO", ".jpg"),
    ]))  # fmt: skip
    options: dict[str, object] = {"quality": quality}
    if kind == "TIFF":
        options["compression"] = "jpeg"
    if kind == "JPEG2000":
        options = {"quality_layers": [quality], "irreversible": draw(st.booleans())}
    return suffix, saved(image.convert(draw(st.sampled_from(["L", "RGB"]))), kind, **options)


@fuzz(10)
@given(drawn=lossy_files())
def test_lossy_masks_are_refused(folder, drawn):
    suffix, content = drawn
    for name, read in entries(folder, suffix, content, (64, 48)):
        with pytest.raises(InputError, match="lossy"):
            pytest.fail(f"{name}: {np.unique(read())}")


@st.composite
def color_masks(draw: st.DrawFn) -> tuple[np.ndarray, dict[int, tuple[int, int, int]]]:
    """(H, W) ids with background, and their colors."""
    ids = draw(st.lists(st.integers(1, 255), min_size=1, max_size=4, unique=True))
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    chosen = draw(st.lists(st.sampled_from([0, *ids]), min_size=shape[0] * shape[1],
                           max_size=shape[0] * shape[1]))  # fmt: skip
    return np.array(chosen).reshape(shape), {i: tuple(COLORS[i].tolist()) for i in ids}


@fuzz(10)
@given(drawn=color_masks())
def test_lossless_webp_is_read_as_png(folder, drawn):
    ids, colors = drawn
    image, results = Image.fromarray(COLORS[ids]), {}
    for kind in ("PNG", "WEBP"):
        content = saved(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
        for name, read in entries(folder, f".{kind.lower()}", content, image.size):
            try:
                result = read()
            except InputError as error:
                result = str(error).replace(".webp", ".png")
            assert np.array_equal(results.setdefault(name, result), result), name
        path = folder / f"set/labels/a.{kind.lower()}"
        named = Example(folder / "set/images/a.png", path, colors=colors)
        assert np.array_equal(named.labels.ids, ids)
