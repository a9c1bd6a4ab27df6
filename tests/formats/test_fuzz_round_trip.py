"""Label maps drawn at random come back from every format, written by us and by hand."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from incontext import Example, export, read_examples
from incontext.batch.inputs import find_images
from incontext.batch.segment import InputImage, Manifest, fingerprint, result_record
from incontext.data.pictures import read_pairs
from incontext.evaluation.labelled_set import LabelledSet
from incontext.images.image import read_image
from incontext.inference.segmentation import Segmentation
from tests.fuzzing import fuzz

pytest.importorskip("faster_coco_eval", reason="needs faster-coco-eval (export extra)")
pytest.importorskip("scipy", reason="needs SciPy (export extra)")
pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("ignore")]

Names = dict[int, str]
NAME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6).map(str.strip).filter(
    lambda name: name and len(name.splitlines()) == 1 and name[0] != "#" and name.isprintable()
)  # fmt: skip


@st.composite
def label_maps(draw: st.DrawFn, largest: int = 400) -> tuple[np.ndarray, Names]:
    """(H, W) int32 of a few ids, and a name for each id and for one that is not there."""
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    ids = draw(st.lists(st.integers(1, largest), min_size=2, max_size=4, unique=True))
    names = draw(st.lists(NAME, min_size=len(ids), max_size=len(ids), unique=True))
    labels = draw(npst.arrays(np.int32, shape, elements=st.sampled_from([0, *ids[:-1]])))
    return labels, dict(zip(ids, names, strict=True))


def color_of(index: int) -> tuple[int, int, int]:
    return (index % 256, 100 + index // 256, 50)


def write_image(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", labels.shape[::-1], (90, 120, 40)).save(path)
    return path


def segmented(folder: Path, source: InputImage, labels: np.ndarray, names: Names) -> Path:
    """A folder as `incontext segment` leaves it."""
    out, colors = folder / "results", {i: color_of(i) for i in names}
    about = {str(i): {"name": name, "color": colors[i]} for i, name in names.items()}
    manifest = Manifest(out, {}, about)
    result = Segmentation(
        labels, np.ones(labels.shape, np.float32), dict.fromkeys(names, 0.9),
        read_image(source.path), (), colors, names,
    )  # fmt: skip
    files = result.save(out, source.name)
    record = result_record(result, fingerprint(source.path), files, out, [])
    manifest.results[source.name] = record
    manifest.save()
    return out


def segmented_on_earth(folder: Path, labels: np.ndarray, names: Names) -> Path:
    """A folder of results whose image lies somewhere on earth."""
    source = InputImage(write_earth(folder / "images/a.tif", labels), "a")
    return segmented(folder, source, labels, names)


def write_earth(path: Path, labels: np.ndarray) -> Path:
    """An image that lies somewhere on earth."""
    rasterio = pytest.importorskip("rasterio", reason="needs rasterio (geo extra)")
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 4_000_000)
    profile = {"driver": "GTiff", "height": labels.shape[0], "width": labels.shape[1], "count": 3,
               "dtype": "uint8", "crs": "EPSG:32633", "transform": transform}  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(np.full((3, *labels.shape), 90, np.uint8))
    return path


def check(path: Path, images: Path | None, labels: np.ndarray, names: Names) -> None:
    """The same ids by `--examples-from`, and in the set that tune and doctor make of it."""
    [example] = read_examples(path, images=images)
    assert np.array_equal(example.labels.ids, labels)
    present = {i: names[i] for i in np.unique(labels[labels > 0]).tolist()}
    if example.names:  # palette images may come without
        assert {i: example.names[i] for i in present} == present
    if not present:
        return
    dataset = LabelledSet.from_examples([example], max(labels.shape))
    assert set(dataset.ids) == present.keys()
    assert dataset.areas.tolist() == [[int((labels == i).sum()) for i in dataset.ids]]
    if labels.shape[0] == labels.shape[1]:
        assert np.array_equal(dataset.example(0).labels.ids, labels)


def write_scan(path: Path, labels: np.ndarray) -> Path:
    """A volume of one slice, whose columns go to the left and rows to the back of a patient."""
    nibabel = pytest.importorskip("nibabel", reason="needs nibabel (volumes extra)")
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 99, (*labels.shape[::-1], 1), np.int16)
    nibabel.save(nibabel.Nifti1Image(noise, np.diag([-1.0, -2.0, 3.0, 1.0])), path)
    return path


OURS = {"results": "", "coco": "a.json", "coco-polygons": "a.json", "yolo": "set", "voc": "set",
        "label-studio": "a.json", "cvat": "a.xml", "geotiff": "set", "nifti": "set"}  # fmt: skip


@pytest.mark.parametrize("to", OURS)
@fuzz(10, cases=len(OURS))
@given(drawn=label_maps())
def test_fuzz_our_own_files(tmp_path_factory, to, drawn):
    labels, names = drawn
    folder = tmp_path_factory.getbasetemp() / "ours"
    shutil.rmtree(folder, ignore_errors=True)
    if to == "nifti":
        [source] = find_images([write_scan(folder / "images/a.nii", labels)], folder / "results")
        out = segmented(folder, source, labels, names)
    else:
        out = segmented_on_earth(folder, labels, names)
    path = folder / OURS[to] if OURS[to] else out
    if to != "results":
        export(out, to, path)
    if to == "nifti" and not labels.any():
        return  # slices without ids are no examples
    images = folder / "images" if path.suffix or to in ("geotiff", "nifti") else None
    check(path, images, labels, names)
    if to.startswith("coco"):
        example = Example(folder / "images/a.tif", path)
        assert np.array_equal(example.labels.ids, labels)


def runs(labels: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Yield (id, y, x from, x to) of every row's stretches of one id."""
    for y, row in enumerate(labels.tolist()):
        start = 0
        for x in range(1, len(row) + 1):
            if x == len(row) or row[x] != row[start]:
                if row[start]:
                    yield row[start], y, start, x
                start = x


def corners(y: int, start: int, stop: int) -> list[tuple[int, int]]:
    return [(start, y), (stop, y), (stop, y + 1), (start, y + 1)]


def lengths(flat: list[bool]) -> list[int]:
    """Run lengths, background first."""
    result, value = [0], False
    for pixel in flat:
        if pixel != value:
            result.append(0)
            value = pixel
        result[-1] += 1
    return result


def coco_document(labels: np.ndarray, names: Names, polygons: bool) -> dict:
    height, width = labels.shape
    annotations = []
    for index in np.unique(labels[labels > 0]).tolist():
        outline = [
            [c for corner in corners(y, start, stop) for c in corner]
            for i, y, start, stop in runs(labels) if i == index
        ]  # fmt: skip
        counts = lengths((index == labels.T).ravel().tolist())
        plain = {"size": [height, width], "counts": counts}
        annotations.append({"id": index, "image_id": "7", "category_id": str(index), "iscrowd": "0",
                            "segmentation": outline if polygons else plain})  # fmt: skip
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": float(width), "height": str(height)}],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in names.items()],
    }


def write_coco(folder: Path, labels: np.ndarray, names: Names) -> Path:
    path = folder / "images/a.json"
    path.write_text(json.dumps(coco_document(labels, names, polygons=False)), encoding="utf-8-sig")
    return path


def write_coco_polygons(folder: Path, labels: np.ndarray, names: Names) -> Path:
    path = folder / "images/a.json"
    text = json.dumps(coco_document(labels, names, polygons=True), ensure_ascii=False)
    path.write_text(text, encoding="utf-16")
    return path


def write_yolo(folder: Path, labels: np.ndarray, names: Names) -> Path:
    height, width = labels.shape
    order = sorted(names)
    lines = [
        " ".join([str(order.index(i)), *(f"{x / width} {y / height}" for x, y in corners(*box))])
        for i, *box in runs(labels)
    ]
    (folder / "labels").mkdir()
    (folder / "labels/a.txt").write_text("\r\n".join(lines), encoding="utf-16")
    data = {"train": "images", "names": [names[i] for i in order],
            "ids": dict(enumerate(order))}  # fmt: skip
    (folder / "data.yaml").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return folder


def write_voc(folder: Path, labels: np.ndarray, names: Names) -> Path:
    (folder / "images").rename(folder / "JPEGImages")
    (folder / "SegmentationClass").mkdir()
    colors = {0: (0, 0, 0)} | {i: color_of(i) for i in names}
    mask = Image.fromarray(
        np.array([[colors[i] for i in row] for row in labels.tolist()], np.uint8)
    )
    mask.save(folder / "SegmentationClass/a.png")
    lines = [f"{name}:{','.join(map(str, colors[i]))}::" for i, name in names.items()]
    head = f"# ids: 0 {' '.join(map(str, names))}\nbackground:0,0,0::\n"
    (folder / "labelmap.txt").write_text(head + "\n".join(lines), encoding="utf-8-sig")
    return folder


def brush(mask: np.ndarray) -> list[int]:
    """The brush's bytes, every value written out: no runs."""
    values = [255 * int(v) for v in mask.ravel() for _ in range(4)]
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{15:04b}" for _ in range(4))
    bits += f"011{len(values) - 1:016b}" + "".join(f"{v:08b}" for v in values)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def write_tasks(
    folder: Path, labels: np.ndarray, names: Names, regions: list[dict], tool: str
) -> Path:
    height, width = labels.shape
    own = {"to_name": "img", "original_width": width, "original_height": height}
    task = {"data": {"pic": "/data/upload/3/01234567-a.png"},
            "annotations": [{"result": [{**region, **own} for region in regions]}]}  # fmt: skip
    path = folder / "images/a.json"
    path.write_text(json.dumps([task]), encoding="utf-16")
    tags = "".join(f'<Label value={quoteattr(n)} category="{i}"/>' for i, n in names.items())
    # Two tools with the same labels.
    config = f'<View><Image name="img" value="$pic"/><{tool} name="a" toName="img">{tags}</{tool}>'
    config += f'<EllipseLabels name="b" toName="img">{tags}</EllipseLabels></View>'
    (folder / "images/a.config.xml").write_text(config, encoding="utf-8-sig")
    return path


def write_brushes(folder: Path, labels: np.ndarray, names: Names) -> Path:
    regions = [
        {"type": "brushlabels", "value": {"rle": brush(labels == i), "brushlabels": [names[i]]}}
        for i in np.unique(labels[labels > 0]).tolist()
    ]
    return write_tasks(folder, labels, names, regions, "BrushLabels")


def write_percents(folder: Path, labels: np.ndarray, names: Names) -> Path:
    height, width = labels.shape
    regions = [
        {"type": "polygonlabels", "value": {
            "points": [[100 * x / width, 100 * y / height] for x, y in corners(*box)],
            "polygonlabels": [names[i]],
        }}
        for i, *box in runs(labels)
    ]  # fmt: skip
    return write_tasks(folder, labels, names, regions, "PolygonLabels")


def write_cvat(folder: Path, labels: np.ndarray, names: Names, polygons: bool = False) -> Path:
    height, width = labels.shape
    rows = "".join(f"<label><name>{escape(n)}</name><id>{i}</id></label>" for i, n in names.items())
    shapes = [
        f'<polygon label={quoteattr(names[i])} z_order="0" points="'
        + ";".join(f"{x},{y}.00" for x, y in corners(*box)) + '"/>'
        for i, *box in runs(labels)
    ] if polygons else [
        f'<mask label={quoteattr(names[i])} left="0" top="0" width="{width}" height="{height}" '
        f'rle="{", ".join(map(str, lengths((labels == i).ravel().tolist())))}"/>'
        for i in np.unique(labels[labels > 0]).tolist()
    ]  # fmt: skip
    path = folder / "images/a.xml"
    path.write_text(
        '<?xml version="1.0" encoding="utf-8"?><annotations>'
        f"<meta><job><labels>{rows}</labels></job><task><labels>{rows}</labels></task></meta>"
        f'<image id="0" name="a.png" width="{width}" height="{height}">{"".join(shapes)}</image>'
        "</annotations>",
        encoding="utf-16",
    )
    return path


def write_cvat_polygons(folder: Path, labels: np.ndarray, names: Names) -> Path:
    return write_cvat(folder, labels, names, polygons=True)


def write_raster(folder: Path, labels: np.ndarray, names: Names) -> Path:
    rasterio = pytest.importorskip("rasterio", reason="needs rasterio (geo extra)")
    path = folder / "labels/a.tif"
    path.parent.mkdir()
    profile = {"driver": "GTiff", "height": labels.shape[0], "width": labels.shape[1], "count": 1,
               "dtype": "int32"}  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(labels, 1)
    return path


def write_volume(folder: Path, labels: np.ndarray, names: Names) -> Path:
    scan = write_scan(folder / "images/a.nii.gz", labels)
    nibabel = pytest.importorskip("nibabel", reason="needs nibabel (volumes extra)")
    image = nibabel.Nifti1Image(labels.T[:, :, None], nibabel.load(scan).affine)
    path = folder / "labels/a.nii.gz"
    path.parent.mkdir()
    nibabel.save(image, path)
    return path


def write_pairs(folder: Path, labels: np.ndarray, names: Names) -> Path:
    (folder / "labels").mkdir()
    Image.fromarray(labels.astype(np.uint8)).save(folder / "labels/a.png")
    text = json.dumps({"classes": {str(i): name for i, name in names.items()}})
    folder.with_suffix(".json").write_text(text, encoding="utf-8-sig")
    return folder


THEIRS: dict[str, Callable[[Path, np.ndarray, Names], Path]] = {
    "coco": write_coco, "coco polygons": write_coco_polygons, "yolo": write_yolo, "voc": write_voc,
    "label studio brushes": write_brushes, "label studio polygons": write_percents,
    "cvat": write_cvat, "cvat polygons": write_cvat_polygons, "geotiff": write_raster,
    "nifti": write_volume, "pairs": write_pairs,
}  # fmt: skip


@pytest.mark.parametrize("form", THEIRS)
@fuzz(10, cases=len(THEIRS))
@given(data=st.data())
def test_fuzz_files_written_by_hand(tmp_path_factory, form, data):
    """Fields of COCO as text, byte order marks, labels that are listed twice."""
    labels, names = data.draw(label_maps(254 if form == "pairs" else 400))
    assume(form != "nifti" or labels.any())  # slices without ids are no examples
    folder = tmp_path_factory.getbasetemp() / "theirs"
    shutil.rmtree(folder, ignore_errors=True)
    image = write_image(folder / "images/a.png", labels)
    path = THEIRS[form](folder, labels, names)
    apart = image.parent if path.suffix and form != "pairs" else None
    check(path, apart, labels, names)
    if form.startswith("coco"):
        assert np.array_equal(Example(image, path).labels.ids, labels)
    if form == "pairs":  # as finetune and train read it
        [(_, _, ids)] = read_pairs(path)
        assert np.array_equal(ids, labels)
