"""Results in the formats of other tools: each opens in another reader and says the same."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as npst
from PIL import Image

from incontext import Coco, InputError, export
from incontext.batch.inputs import InputImage, fingerprint
from incontext.batch.manifest import Manifest
from incontext.batch.segment import result_record
from incontext.formats import FORMATS
from incontext.formats.brush_rle import decode, encode
from incontext.formats.output import link
from incontext.formats.polygons import polygons
from incontext.formats.results import read_results
from incontext.inference.segmentation import Segmentation

coco = pytest.importorskip("faster_coco_eval", reason="needs faster-coco-eval (export extra)")
pytest.importorskip("scipy", reason="needs SciPy (export extra)")

NAMES = {1: "leaf", 7: 'a "b" & <c>', 300: "nothing"}
QUALITY = {1: 0.8, 7: 0.4, 300: 0.0}
COLORS = {1: (255, 0, 0), 7: (0, 128, 255), 300: (9, 9, 9)}


def result(seed: int, ids: tuple[int, ...] = (1, 7, 300)) -> Segmentation:
    """Blocks and specks of the ids, the last one absent."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0, *ids[:-1]], (4, 5)).repeat(6, 0).repeat(7, 1)[: 22 + seed % 2]
    specks = rng.random(coarse.shape) < 0.1
    labels = np.where(specks, rng.choice([0, *ids[:-1]], coarse.shape), coarse).astype(np.int32)
    height, width = labels.shape
    return Segmentation(
        labels, np.ones(labels.shape, np.float32), {i: 0.9 if i != ids[-1] else 0.1 for i in ids},
        Image.new("RGB", (width, height)), (), {i: COLORS[i] for i in ids},
        {i: NAMES[i] for i in ids}, {i: QUALITY[i] for i in ids},
    )  # fmt: skip


@pytest.fixture
def written(tmp_path) -> tuple[Path, dict[str, Segmentation]]:
    """A folder as `incontext segment` leaves it."""
    out = tmp_path / "results"
    ids = {str(i): {"name": n, "color": COLORS[i]} for i, n in NAMES.items()}
    manifest = Manifest(out, {}, ids)
    results = {}
    for number, name in enumerate(("b", "deep/a", "c")):
        results[name] = one = result(number)
        source = tmp_path / "pictures" / f"{name}.jpg"
        source.parent.mkdir(parents=True, exist_ok=True)
        one.image.save(source)
        target = InputImage(source, name)
        files = one.save(out, name)
        manifest.results[name] = result_record(one, fingerprint(target.path), files, out, [])
    manifest.save()
    return out, results


NEED_A_PLACE = ("geotiff", "nifti")  # formats with tests of their own
masks = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=9))


@given(masks)
@settings(max_examples=300, deadline=None)
def test_outlines_give_back_the_mask(mask):
    height, width = mask.shape
    again = np.zeros(mask.shape, int)
    for ring in polygons(mask):
        # Signed area: what a nonzero filling sees; even-odd by rays through pixel centers.
        x, y = ring[:, 0], ring[:, 1]
        inside = np.zeros(mask.shape, int)
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, 0), strict=True):
            low, high = sorted((y0, y1))
            for row in range(low, high):
                at = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                inside[row] += np.arange(width) + 0.5 < at
        again += inside % 2
        assert x.min() >= 0
        assert y.max() <= height
    assert np.array_equal(again, mask)


@given(masks)
@settings(max_examples=100, deadline=None)
def test_brush_of_label_studio_round_trip(mask):
    assert np.array_equal(decode(encode(mask), mask.shape), mask)


def test_brush_of_long_runs_round_trip():
    mask = np.zeros((300, 400), bool)
    mask[100:250, 7:390] = True
    packed = encode(mask)
    assert len(packed) < 6000
    assert np.array_equal(decode(packed, mask.shape), mask)


def test_results_are_read_back(written):
    folder, results = written
    found = {one.name: one for one in read_results(folder)}
    assert list(found) == ["b", "c", "deep/a"]
    for name, one in found.items():
        assert np.array_equal(one.labels, results[name].labels)
        assert one.names == NAMES
        assert one.presence[1] == pytest.approx(0.9)
        assert one.quality == QUALITY
        assert one.source.name == Path(f"{name}.jpg").name


def test_masks_of_low_quality_are_left_out_and_ids_renamed(written, incontext, tmp_path):
    folder, results = written
    path = tmp_path / "a.json"
    options = ("--min-quality", 0.5, "--name", "1=tree", "--out", path)
    answer = incontext("export", folder, *options)
    assert (answer.code, answer.err) == (0, "")
    assert "3 images, 3 masks; 3 of low quality left out" in answer.out
    document = json.loads(path.read_text())
    assert {a["category_id"] for a in document["annotations"]} == {1}
    assert document["categories"][0]["name"] == "tree"
    assert len(document["images"]) == len(results)
    again = export(folder, "coco", tmp_path / "b.json", min_quality=0.5, names={1: "tree"})
    assert json.loads(again.read_text())["annotations"] == document["annotations"]


def test_export_says_what_is_hardly_there(written, incontext, tmp_path):
    folder, _ = written
    document = json.loads((folder / "results.json").read_text())
    for record in document["results"].values():
        record["ids"]["7"]["quality"] = 0.1
    (folder / "results.json").write_text(json.dumps(document))
    answer = incontext("export", folder, "--out", tmp_path / "a.json")
    assert "3 of them have a quality below 0.2" in answer.out
    assert "--min-quality 0.2 leaves them out" in answer.out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--min-quality", 2), "--min-quality is 2.0; accepted: a number, 0 … 1"),
        (("--name", "5=tree"), "a name for id 5; the results have [1, 7, 300]"),
        (("--name", "tree"), "--name 'tree'; accepted: ID=VALUE, such as 1=mug"),
    ],
)
def test_wrong_selections(written, incontext, tmp_path, options, expected):
    answer = incontext("export", written[0], "--out", tmp_path / "a.json", *options)
    assert (answer.code, answer.err) == (2, f"Error: {expected}\n")
    assert not (tmp_path / "a.json").exists()


def test_files_say_how_good_masks_are(written, tmp_path):
    """COCO each mask; Label Studio, which sorts tasks by their score, the worst of an image."""
    folder, _ = written
    annotations = json.loads(export(folder, "coco", tmp_path / "a.json").read_text())["annotations"]
    assert {(a["category_id"], a["score"], a["quality"]) for a in annotations} == {
        (1, 0.9, 0.8), (7, 0.9, 0.4),
    }  # fmt: skip
    tasks = json.loads(export(folder, "label-studio", tmp_path / "b.json").read_text())
    assert [task["predictions"][0]["score"] for task in tasks] == [0.4] * 3


@pytest.mark.parametrize("name", ["coco", "coco-polygons"])
def test_coco_opens_in_other_readers(written, tmp_path, name):
    folder, results = written
    path = export(folder, name, tmp_path / "out.json")
    readers = [coco.COCO]
    try:
        from pycocotools.coco import COCO

        readers.append(COCO)
    except ImportError:
        pass
    for reader in readers:
        opened = reader(str(path))
        images = {i["file_name"]: i["id"] for i in opened.dataset["images"]}
        assert set(images) == {"b.jpg", "c.jpg", "deep/a.jpg"}
        for stem, one in results.items():
            annotations = opened.loadAnns(opened.getAnnIds(imgIds=[images[f"{stem}.jpg"]]))
            assert {a["category_id"] for a in annotations} == set(np.unique(one.labels)) - {0}
            for annotation in annotations:
                mask = opened.annToMask(annotation).astype(bool)
                truth = one.mask(annotation["category_id"])
                if name == "coco":
                    assert np.array_equal(mask, truth)
                assert (mask & truth).sum() / (mask | truth).sum() > 0.95
                assert annotation["area"] == truth.sum()
                rows, columns = np.nonzero(truth)
                left, top, width, height = annotation["bbox"]
                assert (left, top) == (columns.min(), rows.min())
                assert (left + width - 1, top + height - 1) == (columns.max(), rows.max())
    assert [c["name"] for c in opened.loadCats([1, 7, 300])] == list(NAMES.values())


def test_coco_of_nothing_is_a_coco_file(tmp_path):
    document = json.loads(Coco().save(tmp_path / "coco.json").read_text())
    assert document == {"images": [], "annotations": [], "categories": []}


def test_palette_png_keeps_every_label(written, tmp_path):
    folder, results = written
    out = tmp_path / "voc"
    export(folder, "voc", out)
    for name, one in results.items():
        with Image.open(out / "SegmentationClass" / f"{name}.png") as image:
            assert np.array_equal(np.asarray(image), one.labels)
    lines = (out / "labelmap.txt").read_text().splitlines()
    assert lines[1:4] == ["# ids: 0 1 7 300", "background:0,0,0::", "leaf:255,0,0::"]
    assert (out / "JPEGImages/deep/a.jpg").is_file()


def test_yolo_draws_the_same(written, tmp_path):
    """By the format's own rules: labels are found from pictures, rows are class and shares."""
    folder, results = written
    out = tmp_path / "yolo"
    export(folder, "yolo", out)
    order = {0: 1, 1: 7, 2: 300}
    pictures = sorted(p for p in (out / "images").rglob("*") if p.is_file())
    assert [str(p.relative_to(out / "images")) for p in pictures] == [
        "b.jpg",
        "c.jpg",
        "deep/a.jpg",
    ]
    for picture in pictures:
        head, _, tail = str(picture).rpartition("/images/")
        labels = Path(f"{head}/labels/{tail}").with_suffix(".txt")
        one = results[str(picture.relative_to(out / "images").with_suffix(""))]
        height, width = one.labels.shape
        drawn = np.zeros((height, width), np.int32)
        for line in labels.read_text().splitlines():
            number, *shares = line.split()
            points = np.array(shares, float).reshape(-1, 2)
            assert len(points) >= 3
            assert points.min() >= 0
            assert points.max() <= 1
            # A pixel's center lies half a pixel from every corner, farther than the decimals err.
            inside = np.zeros((height, width), bool)
            x, y = (points * (width, height)).T
            for edge in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
                (x0, y0), (x1, y1) = sorted([edge[:2], edge[2:]], key=lambda p: p[1])
                for row in range(height):
                    if y0 <= row + 0.5 < y1:
                        at = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                        inside[row] ^= np.arange(width) + 0.5 < at
            drawn[inside] = order[int(number)]
        assert np.array_equal(drawn, one.labels)
    said = (out / "data.yaml").read_text()
    assert said.startswith('train: images\nval: images\nnames:\n  0: "leaf"\n')


def test_label_studio_tasks(written, tmp_path):
    folder, results = written
    path = export(folder, "label-studio", tmp_path / "tasks.json")
    tasks = json.loads(path.read_text())
    by_name = {Path(task["data"]["image"]).stem: task for task in tasks}
    for name, one in results.items():
        [prediction] = by_name[Path(name).name]["predictions"]
        seen = set()
        for region in prediction["result"]:
            shape = region["original_height"], region["original_width"]
            [label] = region["value"]["brushlabels"]
            index = next(i for i, n in NAMES.items() if n == label)
            seen.add(index)
            assert np.array_equal(decode(region["value"]["rle"], shape), one.mask(index))
        assert seen == set(np.unique(one.labels).tolist()) - {0}
    tree = ElementTree.fromstring((tmp_path / "tasks.config.xml").read_text())
    assert [label.get("value") for label in tree.iter("Label")] == list(NAMES.values())


def test_cvat_masks(written, tmp_path):
    folder, results = written
    root = ElementTree.parse(export(folder, "cvat", tmp_path / "cvat.xml")).getroot()
    for image in root.iter("image"):
        one = next(r for n, r in results.items() if f"{n}.jpg" == image.get("name"))
        assert (int(image.get("height")), int(image.get("width"))) == one.labels.shape
        for mask in image.iter("mask"):
            index = next(i for i, n in NAMES.items() if n == mask.get("label"))
            runs = [int(n) for n in mask.get("rle").split(",")]
            flat = np.repeat(np.arange(len(runs)) % 2, runs).astype(bool)
            left, top, width, height = (
                int(mask.get(k)) for k in ("left", "top", "width", "height")
            )
            drawn = np.zeros(one.labels.shape, bool)
            drawn[top : top + height, left : left + width] = flat.reshape(height, width)
            assert np.array_equal(drawn, one.mask(index))


def test_geotiff_lies_where_its_picture_lies(tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="needs rasterio (geo extra)")
    from rasterio.transform import from_origin

    out, source = tmp_path / "results", tmp_path / "field.tif"
    one = result(3)
    height, width = one.labels.shape
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8",
        "crs": "EPSG:32632", "transform": from_origin(500_000, 5_400_000, 0.5, 0.5),
    }  # fmt: skip
    with rasterio.open(source, "w", **profile) as file:
        file.write(np.zeros((3, height, width), np.uint8))
    manifest = Manifest(
        out, {}, {str(i): {"name": n, "color": COLORS[i]} for i, n in NAMES.items()}
    )
    files = one.save(out, "field")
    manifest.results["field"] = result_record(one, fingerprint(source), files, out, [])
    manifest.save()
    with pytest.raises(InputError, match=r"field\.tif is the segmented picture itself"):
        export(out, "geotiff", tmp_path, overwrite=True)
    export(out, "geotiff", tmp_path / "geo")
    export(out, "geotiff", tmp_path / "geo", overwrite=True)
    with rasterio.open(tmp_path / "geo/field.tif") as file:
        assert file.crs == rasterio.CRS.from_epsg(32632)
        assert file.transform == profile["transform"]
        assert file.nodata == 0
        assert np.array_equal(file.read(1), one.labels)
        assert file.tags(1)["class_1"] == "leaf"


def test_supervision_reads_a_result():
    supervision = pytest.importorskip("supervision", reason="needs supervision")
    one = result(0)
    found = one.detections()
    assert isinstance(found, supervision.Detections)
    assert sorted(found.class_id.tolist()) == sorted(set(np.unique(one.labels).tolist()) - {0})
    for mask, index, box in zip(found.mask, found.class_id, found.xyxy, strict=True):
        assert np.array_equal(mask, one.mask(int(index)))
        assert box.tolist() == supervision.mask_to_xyxy(mask[None])[0].tolist()


@pytest.mark.parametrize("name", FORMATS)
def test_command(written, tmp_path, incontext, name):
    if name in NEED_A_PLACE:
        pytest.skip("these pictures do not say where they lie")
    folder, _ = written
    out = tmp_path / f"out{FORMATS[name].suffix}"
    answer = incontext("export", folder, "--to", name, "--out", out)
    assert answer.code == 0
    assert str(out) in answer.out
    assert not list(tmp_path.rglob(".*.part"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--to", "csv", "--out", "x.json"], "accepted: coco, coco-polygons, yolo"),
        (["--to", "coco", "--out", "x.txt"], "named something.json"),
        (["--to", "geotiff", "--out", "x"], "not a GeoTIFF"),
    ],
)
def test_what_cannot_be_exported_is_named(
    written, tmp_path, incontext, monkeypatch, arguments, text
):
    pytest.importorskip("rasterio")
    monkeypatch.chdir(tmp_path)
    answer = incontext("export", written[0], *arguments)
    assert answer.code == 2
    assert text in answer.err


@pytest.mark.parametrize("name", [n for n in FORMATS if n not in NEED_A_PLACE])
def test_overwrite_replaces_an_earlier_export(written, tmp_path, name):
    folder, _ = written
    out = tmp_path / f"out{FORMATS[name].suffix}"
    path = export(folder, name, out)
    first = path.read_bytes()
    path.write_bytes(first[:-3])
    with pytest.raises(InputError, match=r"choose another --out, or pass overwrite"):
        export(folder, name, out)
    assert path.read_bytes() == first[:-3]
    assert export(folder, name, out, overwrite=True).read_bytes() == first


EXISTING = [
    ("yolo", "labels/b.txt"),
    ("yolo", "anything.md"),
    ("voc", "SegmentationClass/z.png"),
    ("voc", ".hidden"),
    ("geotiff", "deep/z.tif"),
    ("coco", "x.json"),
    ("coco-polygons", "x.json"),
    ("label-studio", "x.json"),
    ("label-studio", "x.config.xml"),
    ("cvat", "x.xml"),
]


@pytest.mark.parametrize(("name", "existing"), EXISTING)
def test_what_exists_stays(written, tmp_path, incontext, name, existing):
    path = tmp_path / "set" / existing
    path.parent.mkdir(parents=True)
    path.write_text("[]")
    suffix = FORMATS[name].suffix
    out = tmp_path / "set" / f"x{suffix}" if suffix else tmp_path / "set"
    answer = incontext("export", written[0], "--to", name, "--out", out)
    assert answer.code == 2
    assert str(path if suffix else out) in answer.err
    assert "pass overwrite (--overwrite)" in answer.err
    assert [p for p in (tmp_path / "set").rglob("*") if p.is_file()] == [path]
    assert path.read_text() == "[]"
    if name != "geotiff":  # these pictures are no GeoTIFF
        assert incontext("export", written[0], "--to", name, "--out", out, "--overwrite").code == 0
        stays = existing in ("anything.md", ".hidden", "SegmentationClass/z.png")
        assert (path.read_text() == "[]") == stays


def test_an_empty_folder_may_be_written(written, tmp_path):
    (tmp_path / "yolo").mkdir()
    assert export(written[0], "yolo", tmp_path / "yolo").is_file()


def test_labels_beside_the_very_pictures(written, tmp_path):
    """Pictures may lie where the format wants them; they are neither copied nor replaced."""
    folder, results = written
    (tmp_path / "pictures").rename(tmp_path / "images")
    (tmp_path / "pictures").symlink_to(tmp_path / "images")
    before = {p: p.stat().st_ino for p in (tmp_path / "images").rglob("*.jpg")}
    export(folder, "yolo", tmp_path, overwrite=True)
    assert len(list((tmp_path / "labels").rglob("*.txt"))) == len(results)
    assert {p: p.stat().st_ino for p in (tmp_path / "images").rglob("*") if p.is_file()} == before


class TestLink:
    @pytest.fixture
    def no_hard_links(self, monkeypatch):
        def refuse(*_: object) -> None:
            raise OSError("no links here")

        monkeypatch.setattr("os.link", refuse)

    def test_hard(self, tmp_path):
        (tmp_path / "a").write_text("picture")
        link(tmp_path / "a", tmp_path / "deep/b")
        assert (tmp_path / "deep/b").samefile(tmp_path / "a")

    def test_symbolic(self, tmp_path, no_hard_links):
        (tmp_path / "a").write_text("picture")
        (tmp_path / "b").write_text("something else")
        link(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").readlink() == tmp_path / "a"

    def test_in_its_own_place(self, tmp_path, no_hard_links):
        """A symbolic link in place of the picture would point at itself: the picture is lost."""
        (tmp_path / "a").write_text("picture")
        link(tmp_path / "a", tmp_path / "a")
        assert (tmp_path / "a").read_text() == "picture"
        assert not (tmp_path / "a").is_symlink()

    def test_gone(self, tmp_path):
        with pytest.raises(InputError, match="the picture is gone"):
            link(tmp_path / "a", tmp_path / "b")


def test_results_that_are_damaged(written, tmp_path):
    folder, _ = written
    with pytest.raises(InputError, match=r"no results\.json"):
        export(tmp_path / "nowhere", "coco", tmp_path / "x.json")
    (folder / "c.png").unlink()
    with pytest.raises(InputError, match=r"c\.png: gone or damaged"):
        export(folder, "coco", tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()
    (folder / "results.json").write_text("{}")
    with pytest.raises(InputError, match="not of `incontext segment`"):
        export(folder, "coco", tmp_path / "x.json")
