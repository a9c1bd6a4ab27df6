"""Random and damaged input: InputError is all that may come out, or exactly the right ids."""

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from faster_coco_eval import mask as coco
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from incontext import Example, InputError
from incontext.images.image import read_image
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import UNKNOWN, read_labels
from tests.fuzzing import fuzz

FUZZ = fuzz(100)
pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("ignore")]

INTEGERS = [np.dtype(f"{order}{kind}") for order in "<>" for kind in ("i2", "u2", "i4", "u8")]
INTEGERS += [np.dtype(kind) for kind in ("u1", "i1", "i8", "u4")]
SPECIAL = (-(2**31), -2, -1, 0, 0, 0, 1, 1, 2, 7, 254, 255, 255, 256, 65_535, 65_536, 2**62)


@st.composite
def integer_maps(draw: st.DrawFn) -> np.ndarray:
    """(H, W) of values that mean something, as far as the dtype holds them."""
    dtype = draw(st.sampled_from(INTEGERS))
    limits = np.iinfo(dtype)
    values = sorted({v for v in SPECIAL if limits.min <= v <= limits.max} | {int(limits.max)})
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    choices = draw(st.lists(st.sampled_from(values), min_size=1, max_size=4))
    return draw(npst.arrays(dtype, shape, elements=st.sampled_from(choices)))


def naive_ids(values: np.ndarray, ignore: int | str | None) -> list[list[int]] | None:
    """The definition, pixel by pixel; None where the map must be refused."""
    rows = [[int(v) for v in row] for row in values]
    present = {v for row in rows for v in row}
    for white in (255, 65_535):
        if ignore is None and present <= {0, white} and white in present:
            return [[1 if v == white else 0 for v in row] for row in rows]
    if ignore is None and 255 in present:
        return None
    if any(not 0 <= v <= MAX_ID for v in present if v != ignore):
        return None
    return [[UNKNOWN if v == ignore else v for v in row] for row in rows]


@FUZZ
@given(
    integer_maps(), st.sampled_from([None, "none", -1, 0, 255, 65_536, 2**62]), st.integers(0, 3)
)
def test_integer_maps(values, ignore, form):
    size = values.shape[::-1]
    source = [values, values[None], values[..., None], np.asfortranarray(values)][form]
    ids = naive_ids(values, ignore)
    try:
        labels = read_labels(source, size, ignore=ignore)
    except InputError:
        assert ids is None
    else:
        assert labels.ids.tolist() == ids


@FUZZ
@given(integer_maps(), st.sampled_from([None, -1, 255]))
def test_integer_files(values, ignore):
    """Through the formats that keep integers."""
    if values.dtype == np.uint8 or values.dtype == np.dtype("<u2"):
        kind = "PNG"
    elif values.dtype == np.dtype("<i4"):
        kind = "TIFF"
    else:
        return
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    ids = naive_ids(values, ignore)
    try:
        labels = read_labels(Image.open(buffer), values.shape[::-1], ignore=ignore)
    except InputError:
        assert ids is None
    else:
        assert labels.ids.tolist() == ids


ANY_DTYPE = st.one_of(
    npst.scalar_dtypes(), npst.byte_string_dtypes(), npst.unicode_string_dtypes(),
    npst.array_dtypes(), st.sampled_from([np.dtype(object), np.dtype(np.uint8)]),
)  # fmt: skip


@FUZZ
@given(
    npst.arrays(ANY_DTYPE, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)),
    st.sampled_from([None, 0.5, 128]), st.sampled_from([None, "none", 255]),
    st.sampled_from([None, {1: (0, 0, 0)}, {1: (255, 255, 255)}]),
)  # fmt: skip
@pytest.mark.slow
def test_any_array(array, threshold, ignore, colors):
    try:
        image = read_image(array)
    except InputError:
        image = Image.new("RGB", (3, 3))
    assert image.mode == "RGB"
    try:
        labels = Example(image, array, threshold=threshold, ignore=ignore, colors=colors).labels
    except InputError:
        return
    assert labels.ids.shape == image.size[::-1]
    assert labels.ids.dtype == np.int32
    assert UNKNOWN <= labels.ids.min() <= labels.ids.max() <= MAX_ID


@FUZZ
@given(
    st.sampled_from([torch.uint8, torch.bool, torch.int64, torch.float16, torch.bfloat16,
                     torch.float64, torch.complex64, torch.int8]),
    npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)  # fmt: skip
def test_any_tensor(dtype, shape):
    tensor = torch.ones(shape, dtype=dtype)
    for read in (read_image, lambda t: read_labels(t, (3, 3))):
        with contextlib.suppress(InputError):
            read(tensor)


def encode_image(kind: str) -> bytes:
    """A small valid file with several colors, and metadata where the format has it."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    image, exif = Image.fromarray(noise), Image.Exif()
    exif[274] = 6
    options = {
        "PNG": {"exif": exif}, "JPEG": {"exif": exif}, "WEBP": {"exif": exif, "lossless": True},
        "GIF": {"save_all": True, "append_images": [image.rotate(180)]},
        "TIFF": {"exif": exif, "save_all": True, "append_images": [image.rotate(180)]},
        "BMP": {},
    }[kind]  # fmt: skip
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def label_file(kind: str) -> bytes:
    """The same for labels: ids with a palette, 16 bits, or one bit."""
    ids = np.arange(120, dtype=np.uint8).reshape(12, 10) % 3
    image = {
        "palette": Image.fromarray(ids),
        "deep": Image.fromarray(ids.astype(np.uint16) * 300),
        "bits": Image.fromarray(ids > 0),
    }[kind]
    if kind == "palette":
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


FORMATS = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")
FILES = {kind: encode_image(kind) for kind in FORMATS}
FILES |= {kind: label_file(kind) for kind in ("palette", "deep", "bits")}


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file cut short, with some bytes changed, or with nonsense behind it."""
    data = bytearray(FILES[draw(st.sampled_from(sorted(FILES)))])
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data) + draw(st.binary(max_size=8))


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "file.png"


def check_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        image = read_image(path)
    except InputError as error:
        if str(path) not in str(error):
            pytest.fail(f"the file is not named: {error}")
        image = Image.new("RGB", (10, 12))
    assert image.mode == "RGB"
    if image.width * image.height > 10**6:  # a flipped byte in the size: real, and slow
        return
    for options in ({}, {"ignore": "none"}, {"threshold": 128}, {"colors": {1: (0, 0, 0)}}):
        try:
            labels = Example(image, path, **options).labels
        except InputError:
            continue
        assert labels.ids.shape == image.size[::-1]
        assert UNKNOWN <= labels.ids.min() <= labels.ids.max() <= MAX_ID


@fuzz(150)
@given(content=damaged())
def test_damaged_files(path, content):
    check_file(path, content)


@FUZZ
@given(
    content=st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda kind, tail: FILES[kind][:24] + tail, st.sampled_from(FORMATS), st.binary()
        ),
    )
)
def test_random_bytes(path, content):
    check_file(path, content)


def test_valid_files(path):
    """The files that the others damage are whole."""
    for kind, content in FILES.items():
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert read_image(path).size in ((10, 12), (12, 10)), kind


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["segmentation", "size", "counts", "category_id", "iscrowd"]), inner
        )
    ),
    max_leaves=8,
)


@FUZZ
@given(
    st.one_of(
        st.lists(JSON, max_size=3),
        st.dictionaries(st.sampled_from(["segmentation", "counts", "size"]), JSON),
    )
)
def test_any_annotation(source):
    try:
        labels = read_labels(source, (5, 4))
    except InputError:
        return
    assert labels.ids.shape == (4, 5)


@FUZZ
@given(
    st.lists(st.integers(0, 9), max_size=6) | st.lists(st.integers(-3, 30), max_size=6)
    | st.text("0123456789:;<>@PT`aloO", max_size=8) | st.binary(max_size=8)
)  # fmt: skip
def test_any_runs(counts):
    rle = {"size": [4, 5], "counts": counts}
    try:
        labels = read_labels(rle, (5, 4))
    except InputError:
        return
    encoded_rle = coco.frPyObjects(rle, 4, 5) if isinstance(counts, list) else rle
    assert np.array_equal(labels.ids, coco.decode(encoded_rle))


@FUZZ
@given(st.lists(st.lists(st.floats(-12, 12) | st.integers(-12, 12), max_size=9), max_size=3))
def test_any_polygons(polygons):
    try:
        labels = read_labels({"segmentation": polygons}, (5, 4))
    except InputError:
        return
    mask = coco.decode(coco.merge(coco.frPyObjects(polygons, 4, 5)))
    assert np.array_equal(labels.ids, mask)
