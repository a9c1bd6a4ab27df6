"""Files of other tools, damaged or with values of other types: InputError is all that comes out."""

import codecs
import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from incontext import Example, InputError, read_examples
from incontext.data.pictures import load_set
from incontext.formats.brush_rle import encode
from incontext.labels.coco import encode_rle
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import UNKNOWN
from tests.formats.test_read_examples import segmented
from tests.fuzzing import fuzz

pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("ignore")]

SIZE = (9, 7)  # width, height
MASK = np.zeros(SIZE[::-1], bool)
MASK[2:5, 3:8] = True
BOX = [3, 2, 8, 2, 8, 5, 3, 5]
PERCENT = [[100 * x / SIZE[0], 100 * y / SIZE[1]] for x, y in zip(BOX[::2], BOX[1::2], strict=True)]
SHARES = " ".join(str(p / SIZE[i % 2]) for i, p in enumerate(BOX))
SIDES = {"original_width": SIZE[0], "original_height": SIZE[1]}

COCO = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]},
        {"id": 2, "file_name": "b.png"},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 0, "segmentation": [BOX], "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 7, "segmentation": encode_rle(MASK)},
        {"id": 3, "image_id": 2, "category_id": 7, "iscrowd": 1,
         "segmentation": {"size": [7, 9], "counts": [20, 5, 38]}},
    ],
    "categories": [{"id": 0, "name": "cat"}, {"id": 7, "name": "dog"}],
}  # fmt: skip
TASKS = [
    {"id": 1, "data": {"image": "/data/upload/1/0123abcd-a.png"}, "annotations": [{"result": [
        {"id": "r", "type": "brushlabels", "to_name": "image", "image_rotation": 0, **SIDES,
         "value": {"format": "rle", "rle": encode(MASK), "brushlabels": ["cat"]}},
        {"id": "s", "type": "polygonlabels", "to_name": "image", **SIDES,
         "value": {"points": PERCENT, "polygonlabels": ["dog"]}},
        {"type": "choices", "value": {"choices": ["x"]}},
    ]}]},
    {"id": 2, "data": {"image": "http://host/b.png?x=1"}, "predictions": [{"result": []}]},
]  # fmt: skip
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="b" toName="image">'
    '<Label value="cat" category="3" background="#ff0000"/><Label value="dog" category="4"/>'
    "</BrushLabels></View>"
)
CVAT = (
    '<?xml version="1.0" encoding="utf-8"?><annotations><meta><task><labels><label><name>cat</name>'
    "<color>#ff0000</color><id>5</id></label></labels></task></meta>"
    f'<image id="0" name="a.png" width="{SIZE[0]}" height="{SIZE[1]}">'
    '<mask label="cat" rle="1, 2, 1" left="5" top="5" width="2" height="2" z_order="1"/>'
    '<polygon label="cat" points="3,2;8,2;8,5;3,5" z_order="0"/><tag label="x"/>'
    "</image></annotations>"
)
YAML = "path: .\ntrain: images\nval: list.txt\nnames:\n  0: cat\n  1: dog\nids: {0: 4, 1: 9}\n"
LABEL_MAP = "# label:color_rgb:parts:actions\n# ids: 0 3\nbackground:0,0,0::\ncat:9,8,7::\n"
METADATA = {"kind": "semantic", "domain": "x", "classes": {"1": "cat"}}


def write_images(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        Image.new("RGB", SIZE).save(folder / f"{name}.png")


def write_mask(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(MASK.astype(np.uint8)).save(folder / "a.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid file or folder of every format, under the format's name."""
    root = tmp_path_factory.mktemp("documents")
    for name in ("coco", "label-studio", "cvat"):
        write_images(root / name)
    (root / "coco/set.json").write_text(json.dumps(COCO))
    (root / "label-studio/set.json").write_text(json.dumps(TASKS))
    (root / "label-studio/set.config.xml").write_text(CONFIG)
    (root / "cvat/set.xml").write_text(CVAT)
    write_images(root / "yolo/images")
    (root / "yolo/labels").mkdir()
    for name, text in (("data.yaml", YAML), ("list.txt", "./images/a.png\nimages\\b.png\n"),
                       ("labels/a.txt", f"1 {SHARES}\n\n0 {SHARES}\n")):  # fmt: skip
        (root / "yolo" / name).write_text(text)
    write_images(root / "voc/JPEGImages")
    write_mask(root / "voc/SegmentationClass")
    (root / "voc/labelmap.txt").write_text(LABEL_MAP)
    write_images(root / "pairs/set/images")
    write_mask(root / "pairs/set/labels")
    (root / "pairs/set.json").write_text(json.dumps(METADATA))
    segmented(root / "results", {"a": MASK * 1}, {1: "cat"})
    return root


# The file of each that is damaged, what is read, and in which format.
DOCUMENTS = {
    "coco": ("coco/set.json", "coco/set.json"),
    "label-studio": ("label-studio/set.json", "label-studio/set.json"),
    "label-studio config": ("label-studio/set.config.xml", "label-studio/set.json"),
    "cvat": ("cvat/set.xml", "cvat/set.xml"),
    "yolo": ("yolo/data.yaml", "yolo"),
    "yolo labels": ("yolo/labels/a.txt", "yolo"),
    "yolo list": ("yolo/list.txt", "yolo"),
    "voc": ("voc/labelmap.txt", "voc"),
    "pairs": ("pairs/set.json", "pairs/set"),
    "results": ("results/results/results.json", "results/results"),
}


def read(root: Path, case: str, content: bytes) -> list[Example] | None:
    """Read a case whose file has this content; None if it is refused, in one line that names it."""
    place, source = (root / part for part in DOCUMENTS[case])
    valid = place.read_bytes()
    place.write_bytes(content)
    problem = ""
    try:
        examples = list(read_examples(source, format=case.partition(" ")[0]))
    except InputError as error:
        problem = str(error)
    finally:
        place.write_bytes(valid)
    if problem:
        assert str(root) in problem
        assert "\n" not in problem
        return None
    for example in examples:
        assert example.labels.ids.shape == SIZE[::-1]
        assert UNKNOWN <= example.labels.ids.min() <= example.labels.ids.max() <= MAX_ID
        assert all(isinstance(name, str) for name in example.names.values())
    return examples


def labels_of(examples: list[Example] | None) -> list[Any] | None:
    return examples and [(e.source, e.names, e.labels.ids.tolist()) for e in examples]


@pytest.mark.parametrize("case", DOCUMENTS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
def test_fuzz_byte_order_marks(root, case, encoding):
    """Text with a mark is the same text, whatever an XML declaration says."""
    text = (root / DOCUMENTS[case][0]).read_text()
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    valid = read(root, case, text.encode())
    assert valid
    assert labels_of(read(root, case, mark + text.encode(encoding))) == labels_of(valid)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where values lie in a JSON document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:12]) if isinstance(
        value, list) else ()  # fmt: skip
    for key, inner in items:
        yield from paths_in(inner, (*path, key))


ODD = st.sampled_from([
    None, True, False, "", "0", "1", "3.0", "text", "../a.png", "..\\..\\a.png", "\0", "x" * 5000,
    "\udcfc", "http://[x", [], {}, [[]], [None], {"id": 1}, 0, -1, 1, 2, 1.5, 255, 65_536, 2**31,
    10**30, float("nan"), float("inf"), -0.0, "9" * 5000, "image", "polygonlabels",
])  # fmt: skip


@st.composite
def mistyped(draw: st.DrawFn, document: Any) -> bytes:
    """A JSON document with some values replaced or left out."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(paths_in(changed))))
        value = copy.deepcopy(draw(ODD))
        if not path:
            return json.dumps(value).encode()
        owner = changed
        for key in path[:-1]:
            owner = owner[key]
        if draw(st.integers(0, 4)) == 0:
            del owner[path[-1]]
        else:
            owner[path[-1]] = value
    return json.dumps(changed).encode()


@fuzz(120)
@given(content=mistyped(COCO))
def test_fuzz_fields_of_coco(root, content):
    """Both ways to read a file agree about the picture."""
    examples = read(root, "coco", content)
    path = root / "coco/other.json"
    path.write_bytes(content)
    for name in ("a.png", "b.png"):
        try:
            example = Example(root / "coco" / name, path)
        except InputError:
            continue
        same = [e for e in examples or [] if e.source == name]
        assert not same or np.array_equal(same[0].labels.ids, example.labels.ids)


@fuzz(120)
@given(content=mistyped(TASKS))
def test_fuzz_fields_of_label_studio(root, content):
    read(root, "label-studio", content)


@fuzz(80)
@given(data=st.data())
def test_fuzz_fields_of_results(root, data):
    valid = json.loads((root / DOCUMENTS["results"][0]).read_text())
    read(root, "results", data.draw(mistyped(valid)))


@fuzz(50)
@given(content=mistyped(METADATA))
def test_fuzz_fields_of_sets(root, content):
    read(root, "pairs", content)
    (root / "pairs/set.json").write_bytes(content)
    try:
        with suppress(InputError):
            load_set(root / "pairs/set", 8)
    finally:
        (root / "pairs/set.json").write_text(json.dumps(METADATA))


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "cp037"]
TOKENS = ["", "0", "-1", "1e999", "nan", "x", "9" * 5000, "null", "[1]", "{a: b}", "\0", "é",
          "a, b", "../..", "&amp;", "&b;", "<", '"', ".inf", "!!python/name:os.system", "*a",
          "&a [*a]", "utf8mb4", "shift_jis", "<!DOCTYPE a [<!ENTITY b 'c'>]>"]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """A text cut short, with words replaced, in any encoding, with bytes changed."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        stop = start + draw(st.integers(0, 6))
        text = text[:start] + draw(st.sampled_from(TOKENS)) + text[stop:]
    if draw(st.integers(0, 3)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
    content = bytearray(text.encode(draw(st.sampled_from(ENCODINGS)), "replace"))
    for _ in range(draw(st.integers(0, 2)) if content else 0):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content)


@pytest.mark.parametrize("case", DOCUMENTS)
@fuzz(40, cases=len(DOCUMENTS))
@given(data=st.data())
def test_fuzz_damaged_documents(root, case, data):
    read(root, case, data.draw(damaged((root / DOCUMENTS[case][0]).read_text())))


NUMBERS = st.sampled_from(
    ["0", "1", "1.0", "2", "-1", "0.5", "1.02", "nan", "1e999", "x", "9" * 400]
)


@fuzz(60)
@given(st.lists(st.lists(NUMBERS, max_size=8), max_size=4))
def test_fuzz_lines_of_yolo(root, lines):
    read(root, "yolo labels", "\n".join(" ".join(line) for line in lines).encode())


ATTRIBUTES = ("label", "rle", "left", "top", "width", "height", "z_order", "points")
SHAPES = st.lists(
    st.tuples(
        st.sampled_from(["mask", "polygon", "box", "tag", "x"]),
        st.dictionaries(
            st.sampled_from(ATTRIBUTES),
            st.sampled_from(["", "cat", "dog", "0", "2", "-1", "4", "1.5", "1,2,1", "0,4",
                             "3,2;8,2;8,5", "1,2;3", "nan,1;2,3;4,5", "9" * 5000]),
        ),
    ),
    max_size=3,
)  # fmt: skip


@fuzz(60)
@given(SHAPES)
def test_fuzz_shapes_of_cvat(root, shapes):
    text = "".join(
        f"<{tag} " + " ".join(f'{k}="{v}"' for k, v in values.items()) + "/>"
        for tag, values in shapes
    )
    read(root, "cvat", CVAT.replace("<tag", f"{text}<tag").encode())


@fuzz(60)
@given(data=st.data())
def test_fuzz_damaged_rasters(root, data):
    rasterio = pytest.importorskip("rasterio", reason="needs rasterio (geo extra)")
    path = root / "rasters/a.tif"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)  # GDAL opens what it replaces
    profile = {"driver": "GTiff", "width": SIZE[0], "height": SIZE[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(MASK.astype(np.uint8), 1)
        raster.update_tags(1, class_1="cat")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    with suppress(InputError):
        [example] = read_examples(path, images=root / "cvat/a.png", format="geotiff")
        assert example.labels.ids.shape == SIZE[::-1]


@pytest.mark.parametrize("path", [None, "", 3, ["a"]])
def test_a_record_without_a_path_is_damaged(root, path):
    document = json.loads((root / DOCUMENTS["results"][0]).read_text())
    [record] = document["results"].values()
    record["source"]["path"] = path
    folder = root / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"damaged/results.json.*an entry whose image's path is"):
        list(read_examples(folder))
