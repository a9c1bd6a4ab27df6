"""Labelled data of other tools as examples: what is exported comes back, what is wrong is named."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as npst
from PIL import Image

from incontext import InputError, Predictor, export, read_examples
from incontext.batch.segment import InputImage, Manifest, fingerprint, result_record
from incontext.formats.annotated_image import ImageFolder
from incontext.formats.brush_rle import encode
from incontext.formats.results import LabelledImage
from incontext.formats.yolo import read as read_yolo
from incontext.formats.yolo import write as write_yolo
from incontext.inference.segmentation import Segmentation
from incontext.labels.coco import encode_rle

pytest.importorskip("faster_coco_eval", reason="needs faster-coco-eval (export extra)")
pytest.importorskip("scipy", reason="needs SciPy (export extra)")

NAMES = {1: "leaf", 7: 'a "b" & <c>', 255: "stem", 300: "ground"}
COLORS = {1: (255, 0, 0), 7: (0, 128, 255), 255: (9, 9, 9), 300: (40, 200, 0)}
SIZE = (35, 22)  # width, height


def labels_of(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ids = [0, 1, 7, 255, 300] if seed else [0]
    coarse = rng.choice(ids, (4, 5)).repeat(6, 0).repeat(7, 1)[: SIZE[1]]
    specks = rng.random(coarse.shape) < 0.1
    return np.where(specks, rng.choice(ids, coarse.shape), coarse).astype(np.int32)


def segmented(folder: Path, truth: dict[str, np.ndarray], names=NAMES) -> Path:
    """A folder as `incontext segment` leaves it, and its pictures."""
    out = folder / "results"
    ids = {str(i): {"name": n, "color": COLORS.get(i, (1, 2, 3))} for i, n in names.items()}
    manifest = Manifest(out, {}, ids)
    for number, (name, labels) in enumerate(truth.items()):
        source = folder / "pictures" / f"{name}.png"
        source.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", labels.shape[::-1], (number, 0, 0))
        picture.save(source)
        one = Segmentation(
            labels, np.ones(labels.shape, np.float32), dict.fromkeys(names, 0.9), picture, (),
            {i: COLORS.get(i, (1, 2, 3)) for i in names}, names,
        )  # fmt: skip
        files = one.save(out, name)
        manifest.results[name] = result_record(
            one, fingerprint(InputImage(source, name).path), files, out, []
        )
    manifest.save()
    return out


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three pictures, one in a folder of its own under a name that is there twice, one empty."""
    folder = tmp_path_factory.mktemp("formats")
    truth = {name: labels_of(seed) for seed, name in ((1, "a"), (2, "x/images/a"), (0, "b"))}
    return folder, segmented(folder, truth), truth


@pytest.mark.parametrize(
    ("to", "suffix"),
    [("results", ""), ("coco", ".json"), ("coco-polygons", ".json"), ("yolo", ""), ("voc", ""),
     ("label-studio", ".json"), ("cvat", ".xml")],
)  # fmt: skip
def test_what_is_exported_comes_back(results, tmp_path, to, suffix):
    folder, out, truth = results
    path = out if to == "results" else tmp_path / f"set{suffix}"
    if to != "results":
        export(out, to, path)
    beside = {"images": folder / "pictures"} if suffix else {}
    read = list(read_examples(path, **beside))
    assert len(read) == len(truth)
    # Red is the number of the picture: it is the right one.
    for one in read:
        labels = list(truth.values())[one.image.getpixel((0, 0))[0]]
        assert np.array_equal(one.labels.ids, labels)
        assert {i: one.names[i] for i in NAMES} == NAMES
        if to in ("results", "label-studio", "cvat", "voc"):
            assert one.labels.colors == {i: COLORS[i] for i in one.labels.present}


def test_names_reach_prompts_and_results(results, tiny_checkpoint):
    _, out, _ = results
    predictor = Predictor.from_pretrained(tiny_checkpoint)
    prompt = predictor.prompt(list(read_examples(out)))
    assert prompt.names == NAMES
    assert predictor.prompt(list(read_examples(out)), names={1: "x"}).names == NAMES | {1: "x"}


def test_names_that_differ_are_refused(results, tmp_path, tiny_checkpoint):
    _, out, truth = results
    other = segmented(tmp_path, {"a": truth["a"]}, NAMES | {7: "other"})
    both = [*read_examples(out), *read_examples(other)]
    with pytest.raises(InputError, match="'other' in another"):
        Predictor.from_pretrained(tiny_checkpoint).prompt(both)


@given(npst.arrays(np.int32, npst.array_shapes(min_dims=2, max_dims=2, max_side=9),
                   elements={"min_value": 0, "max_value": 3}))  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_outlines_come_back(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("outlines")
    out = segmented(folder, {"a": labels}, {1: "one", 2: "two", 3: "three"})
    [yolo] = read_examples(export(out, "yolo", folder / "yolo").parent)
    coco = export(out, "coco-polygons", folder / "a.json")
    [polygons] = read_examples(coco, images=folder / "pictures")
    assert np.array_equal(yolo.labels.ids, labels)
    assert np.array_equal(polygons.labels.ids, labels)


@pytest.mark.parametrize(("width", "height"), [(4000, 3), (3, 3999), (65_521, 1)])
def test_yolo_is_exact_in_large_pictures(tmp_path, width, height):
    """Six decimals err by less than half a pixel where sides are below a million pixels."""
    rng = np.random.default_rng(0)
    labels = (rng.random((height, width)) < 200 / width / height).astype(np.int32)
    source = tmp_path / "a.png"
    Image.new("RGB", (width, height)).save(source)
    one = LabelledImage("a", source, labels, {1: 1.0}, {1: "x"}, {1: (255, 0, 0)})
    [found] = read_yolo(write_yolo([one], tmp_path / "yolo").parent, None)
    assert np.array_equal(found.read_labels((width, height)), labels)


def picture(folder: Path, name: str = "a.png", size=SIZE) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


MASK = np.zeros(SIZE[::-1], bool)
MASK[3:9, 4:20] = True


def coco_file(folder: Path, annotations, images=None, categories=((3, "cat"),)) -> Path:
    images = images or [{"id": 5, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}]
    listed = [{"image_id": 5, "category_id": 3, **a} for a in annotations]
    named = [{"id": i, "name": n} for i, n in categories]
    path = folder / "set.json"
    path.write_text(json.dumps({"images": images, "annotations": listed, "categories": named}))
    return path


def test_coco_of_others(tmp_path):
    """Polygon, compressed and plain runs, a crowd, in pictures below images/."""
    picture(tmp_path / "images")
    flat = MASK.T.ravel()
    ends = np.append(np.flatnonzero(np.diff(flat)) + 1, flat.size)
    plain = {"size": [SIZE[1], SIZE[0]], "counts": np.diff(ends, prepend=0).tolist()}
    box = [[4, 3, 20, 3, 20, 9, 4, 9]]
    for form in (box, plain, encode_rle(MASK)):
        path = coco_file(tmp_path, [{"segmentation": form}])
        [one] = read_examples(path)
        assert np.array_equal(one.labels.ids, MASK * 3)
        assert (one.names, one.source) == ({3: "cat"}, "a.png")
    path = coco_file(tmp_path, [{"segmentation": plain, "iscrowd": 1}])
    assert np.array_equal(next(read_examples(path)).labels.ids, -1 * MASK)
    path = coco_file(
        tmp_path, [{"segmentation": box, "category_id": 0}], None, ((0, "cat"), (1, "dog"))
    )
    [one] = read_examples(path, images=tmp_path / "images")
    assert np.array_equal(one.labels.ids, MASK * 1)
    assert one.names == {1: "cat", 2: "dog"}


def yolo_folder(folder: Path, rows: str, yaml="train: images/train\nnames: [cat, dog]\n") -> Path:
    picture(folder, "images/train/a.png")
    (folder / "labels/train").mkdir(parents=True)
    (folder / "labels/train/a.txt").write_text(rows)
    (folder / "data.yaml").write_text(yaml)
    return folder


ROW = " ".join(f"{x / SIZE[0]} {y / SIZE[1]}" for x, y in ((4, 3), (20, 3), (20, 9), (4, 9)))


@pytest.mark.parametrize(
    "yaml",
    ["train: images/train\nnames: [cat, dog]\n",
     "train: ../images/train\nnames: {0: cat, 1: dog}\n",
     "path: /elsewhere/set\ntrain: images/train\nval: images/train\nnames: [cat, dog]\n",
     "train: list.txt\nnames: [cat, dog]\n"],
)  # fmt: skip
def test_yolo_of_others(tmp_path, yaml):
    folder = yolo_folder(tmp_path, f"1 {ROW}\n", yaml)
    (folder / "list.txt").write_text("./images/train/a.png\n")
    [one] = read_examples(folder)
    assert np.array_equal(one.labels.ids, MASK * 2)
    assert one.names == {1: "cat", 2: "dog"}


def test_voc_of_others(tmp_path):
    """A palette PNG with 255 as void, names by color; a mask in colors."""
    picture(tmp_path, "JPEGImages/a.jpg")
    ids = np.where(MASK, 3, 0).astype(np.uint8)
    ids[0] = 255
    mask = Image.fromarray(ids)
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [7] * 756)
    path = tmp_path / "SegmentationClass/a.png"
    path.parent.mkdir()
    mask.save(path)
    [bare] = read_examples(tmp_path)
    assert np.array_equal(bare.labels.ids, np.where(ids == 255, -1, ids.astype(int)))
    assert not bare.names
    (tmp_path / "labelmap.txt").write_text("# c\nbackground:0,0,0::\ncat:128,128,0::\n")
    assert next(read_examples(tmp_path)).names == {3: "cat"}
    Image.fromarray(np.where(MASK[..., None], (128, 128, 0), 0).astype(np.uint8)).save(path)
    [colored] = read_examples(tmp_path)
    assert np.array_equal(colored.labels.ids, MASK * 1)
    assert colored.names == {1: "cat"}


def test_lines_of_a_label_map_are_indices(tmp_path):
    """Other readers count them: gaps between ids are filled, and are no names here."""
    out = segmented(tmp_path, {"a": MASK * 7}, {1: "leaf", 7: "stem"})
    lines = (export(out, "voc", tmp_path / "voc")).read_text().splitlines()
    listed = [line.split(":")[0] for line in lines if not line.startswith("#")]
    assert listed == ["background", "leaf", *(f"unused-{i}" for i in range(2, 7)), "stem"]
    [one] = read_examples(tmp_path / "voc")
    assert np.array_equal(one.labels.ids, MASK * 7)
    assert one.names == {1: "leaf", 7: "stem"}


def region(label="cat", **more) -> dict:
    value = {"format": "rle", "rle": encode(MASK), "brushlabels": [label]}
    return {"type": "brushlabels", "original_width": SIZE[0], "original_height": SIZE[1],
            "value": value, **more}  # fmt: skip


def tasks_file(folder: Path, *regions: dict, address="/data/upload/7/0123abcd-a.png", **more):
    path = folder / "export.json"
    task = {"data": {"image": address}, "annotations": [{"result": list(regions)}], **more}
    path.write_text(json.dumps([task, {"data": {"image": "never.png"}, "annotations": []}]))
    return path


@pytest.mark.parametrize(
    "address",
    ["/data/upload/7/0123abcd-a.png", "/data/local-files/?d=some/a.png", "s3://bucket/x/a.png",
     "http://host:8080/data/a%2Epng?token=1", "pictures/a.png", "C:\\pictures\\a.png"],
)  # fmt: skip
def test_label_studio_of_others(tmp_path, address):
    picture(tmp_path / "pictures")
    points = [[100 * x / SIZE[0], 100 * y / SIZE[1]] for x, y in ((5, 4), (9, 4), (9, 8), (5, 8))]
    inner = region() | {"type": "polygonlabels",
                        "value": {"points": points, "polygonlabels": ["bird"]}}  # fmt: skip
    path = tasks_file(tmp_path, region(), inner, {"type": "choices", "value": {}}, address=address)
    [one] = read_examples(path)  # the other task was never looked at
    wanted = MASK * 2
    wanted[4:8, 5:9] = 1
    assert np.array_equal(one.labels.ids, wanted)
    assert one.names == {1: "bird", 2: "cat"}
    predicted = json.loads(path.read_text())
    predicted[0]["predictions"] = predicted[0].pop("annotations")
    path.write_text(json.dumps(predicted))
    assert np.array_equal(next(read_examples(path)).labels.ids, wanted)


def cvat_file(folder: Path, shapes: str, meta="", size=SIZE) -> Path:
    path = folder / "annotations.xml"
    path.write_text(
        f'<annotations>{meta}<image id="0" name="a.png" width="{size[0]}" height="{size[1]}">'
        f"{shapes}</image></annotations>"
    )
    return path


POLYGON = '<polygon label="{}" points="4.0,3.0;20.0,3.0;20.0,9.0;4.0,9.0" z_order="{}"/>'


def test_cvat_of_others(tmp_path):
    picture(tmp_path)
    inner = '<mask label="ant" rle="1, 2, 1" left="5" top="5" width="2" height="2" z_order="{}"/>'
    shapes = POLYGON.format("cat", 0) + inner.format(1) + '<tag label="indoors"/>'
    [one] = read_examples(cvat_file(tmp_path, shapes))
    wanted = MASK * 2
    wanted[5, 6] = wanted[6, 5] = 1
    assert np.array_equal(one.labels.ids, wanted)
    assert one.names == {1: "ant", 2: "cat"}
    meta = "<meta><labels>{}</labels></meta>".format(
        "".join(f"<label><name>{n}</name><color>#00ff7f</color></label>" for n in ("cat", "ant"))
    )
    [one] = read_examples(cvat_file(tmp_path, shapes, meta))
    assert np.array_equal(one.labels.ids, np.where(wanted > 0, 3 - wanted, 0))
    assert one.labels.colors[1] == (0, 255, 127)
    with pytest.warns(UserWarning, match=r"a\.png: id 1 lies wholly under"):
        next(read_examples(cvat_file(tmp_path, POLYGON.format("ant", 0) + POLYGON.format("b", 0))))


def test_pairs_of_training(tmp_path):
    picture(tmp_path, "set/images/a.png")
    (tmp_path / "set/labels").mkdir()
    ids = np.where(MASK, 4, 0).astype(np.uint8)
    ids[0] = 255
    Image.fromarray(ids).save(tmp_path / "set/labels/a.png")
    (tmp_path / "set.json").write_text('{"classes": {"4": "cat"}}')
    [one] = read_examples(tmp_path / "set")
    assert np.array_equal(one.labels.ids, np.where(ids == 255, -1, ids.astype(int)))
    assert (one.names, one.source) == ({4: "cat"}, "a")


def test_partly_labelled(tmp_path):
    picture(tmp_path)
    path = cvat_file(tmp_path, POLYGON.format("cat", 0))
    [one] = read_examples(path, unlabelled="unknown")
    assert np.array_equal(one.labels.ids, np.where(MASK, 1, -1))


def bad_coco(**first):
    def make(folder: Path) -> Path:
        picture(folder)
        return coco_file(folder, [{"segmentation": encode_rle(MASK), **first}])

    return make


def bad_image(**said):
    def make(folder: Path) -> Path:
        picture(folder)
        image = {"id": 5, "file_name": "a.png", **said}
        return coco_file(folder, [{"segmentation": encode_rle(MASK)}], [image])

    return make


def rotated(folder: Path) -> Path:
    """Labels of the picture as stored, which EXIF turns."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(folder / "a.jpg", exif=exif)
    image = {"id": 5, "file_name": "a.jpg", "width": SIZE[0], "height": SIZE[1]}
    return coco_file(folder, [{"segmentation": encode_rle(MASK)}], [image])


def twice(folder: Path) -> Path:
    for name in ("x/a.png", "y/a.png"):
        picture(folder, name)
    return coco_file(folder, [{"segmentation": encode_rle(MASK)}])


def written(name: str, text: str):
    def make(folder: Path) -> Path:
        picture(folder)
        (folder / name).write_text(text)
        return folder / name

    return make


def bad_row(row: str, **yaml):
    return lambda folder: yolo_folder(folder, row, **yaml)


def bad_task(*regions, **more):
    def make(folder: Path) -> Path:
        picture(folder)
        return tasks_file(folder, *regions, **more)

    return make


def bad_shape(text: str, **more):
    def make(folder: Path) -> Path:
        picture(folder)
        return cvat_file(folder, text, **more)

    return make


def lone_mask(folder: Path) -> Path:
    picture(folder, "JPEGImages/b.jpg")
    (folder / "SegmentationClass").mkdir()
    Image.fromarray(MASK).save(folder / "SegmentationClass/a.png")
    return folder


BOX = '<box label="cat" xtl="1" ytl="1" xbr="5" ybr="5"/>'
# fmt: off
WRONG = {
    "category": (bad_coco(category_id=70_000), r"set\.json: image a\.png: COCO annotation 0: "),
    "box alone": (bad_coco(segmentation=[]), r"image a\.png: COCO annotation 0: segmentation must"),
    "unlisted": (bad_coco(image_id=8), r"annotations of image 8, which is not listed"),
    "gone": (bad_image(file_name="b.png"), r"image b\.png: no picture 'b\.png' in"),
    "escape": (bad_image(file_name="../a.png"), r"\.\./a\.png.*leads out of it"),
    "hidden escape": (bad_image(file_name="x/../../a.png"), "leads out of it"),
    "size": (bad_image(width=9, height=9), r"labels of 9×9, their picture is 35×22"),
    "rotated": (rotated, r"35×22, their picture is 22×35.*EXIF rotation counts upright"),
    "two pictures": (twice, r"'a\.png' can be .*x/a\.png or .*y/a\.png"),
    "no coco": (written("x.json", '{"a": 1}'), r"x\.json: not a COCO file"),
    "cut": (written("x.json", '{"images": ['), r"x\.json: not a COCO file"),
    "empty": (written("x.json", '{"images": [], "annotations": []}'), "no labelled picture in it"),
    "unknown": (written("x.txt", "a"), r"no known format; accepted: results \(what"),
    "yolo box": (bad_row("0 0.5 0.5 0.1 0.1\n"), r"labels/train/a\.txt line 1: a box"),
    "yolo pixels": (bad_row("\n0 4 3 20 3 20 9\n"), r"a\.txt line 2: points outside 0 … 1"),
    "yolo class": (bad_row(f"2 {ROW}\n"), r"class 2; data\.yaml names 0 … 1"),
    "yolo words": (bad_row("cat 0 0 0 1 1 1\n"), r"a\.txt line 1: class 'cat'; accepted"),
    "yolo odd": (bad_row(f"0 {ROW} 0.5\n"), "9 numbers after the class"),
    "yolo escape": (bad_row("", yaml="train: ../../x\nnames: [a]\n"), r"'\.\./\.\./x' is not in"),
    "yolo no names": (bad_row("", yaml="train: images\n"), r"not a data\.yaml with names"),
    "voc": (lone_mask, r"SegmentationClass/a\.png: no picture 'a'"),
    "two annotators": (bad_task(annotations=[{"result": []}] * 2), r"2 annotations; keep one"),
    "box": (bad_task(region(type="rectanglelabels", id="r7")), r"task 1 \(a\.png\): region r7"),
    "two labels": (bad_task(region(value={"brushlabels": ["a", "b"]})), "one a region"),
    "other size": (bad_task(region(original_width=9)), r"region 1: 9×22, its picture is 35×22"),
    "turned": (bad_task(region(image_rotation=90)), "image_rotation 90"),
    "bad rle": (bad_task(region(value={"rle": [1, 2], "brushlabels": ["a"]})), "ends within a run"),
    "no picture": (bad_task(region(), address="/data/b.png"), r"task 1: no picture '/data/b\.png'"),
    "nothing marked": (bad_task(annotations=[]), "no labelled picture in it"),
    "cvat box": (bad_shape(BOX), r"annotations\.xml: image a\.png: box 1: cat; accepted: mask"),
    "cvat size": (bad_shape("", size=(3, 4)), "labels of 3×4, their picture is 35×22"),
    "cvat mask": (
        bad_shape('<mask label="a" rle="3" left="34" top="0" width="3" height="1"/>'),
        "mask 1: run lengths that do not fill",
    ),
    "cvat polygon": (bad_shape('<polygon label="a" points="1,2"/>'), "polygon 1: segmentation"),
    "no xml": (written("x.xml", "<annotations>"), r"x\.xml: no XML that can be read"),
    "cvat video": (written("x.xml", "<annotations><track/></annotations>"), "has no tracks"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(tmp_path, case):
    make, text = WRONG[case]
    folder = tmp_path / "deep"
    folder.mkdir()
    picture(tmp_path)  # outside of the folder
    path = make(folder)
    with pytest.raises(InputError, match=text) as told:
        list(read_examples(path))
    assert "\n" not in str(told.value)


def test_a_folder_is_looked_through_once(tmp_path):
    """What is looked up is compared with its namesakes only."""
    for name in ("a/1.png", "b/1.png", "b/2.png", "b/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folder = ImageFolder(tmp_path)
    assert folder.find("2.png") == tmp_path / "b/2.png"
    folder.files.clear()  # not asked again
    assert folder.find("a/1.png") == tmp_path / "a/1.png"
    assert folder.find("/other/b/2.jpg") == tmp_path / "b/2.jpg"
    with pytest.raises(InputError, match=r"'/1\.png' can be .*a/1\.png or .*b/1\.png"):
        folder.find("/1.png")
    folder = ImageFolder(tmp_path)
    assert folder.find_stem("a/1") == tmp_path / "a/1.png"
    folder.files.clear()
    assert folder.find_stem("b/1") == tmp_path / "b/1.png"
    with pytest.raises(InputError, match=r"can be .*2\.jpg or .*2\.png"):
        folder.find_stem("b/2")


def test_arguments_that_are_wrong(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        read_examples(tmp_path / "x")
    with pytest.raises(InputError, match="accepted: results, yolo, voc, coco"):
        read_examples(tmp_path, format="csv")
    with pytest.raises(InputError, match="no such folder"):
        read_examples(tmp_path, images=tmp_path / "y")


def test_command_takes_them(results, tmp_path, tiny_checkpoint, incontext):
    folder, out, _ = results
    coco = export(out, "coco", tmp_path / "set.json")
    tiny = ("--checkpoint", tiny_checkpoint)
    run = ("segment", folder / "pictures/a.png", "--examples-from", coco, "--images",
           folder / "pictures", *tiny, "--out", tmp_path / "out")  # fmt: skip
    answer = incontext(*run)
    assert answer.code == 0, answer.err
    assert "id 1 (leaf" in answer.out
    assert "finished already" in incontext(*run).out
    yolo = export(out, "yolo", tmp_path / "yolo").parent
    made = incontext(
        "prompt", "--examples-from", yolo, *tiny, "--out", tmp_path / "p.safetensors"
    )  # fmt: skip
    assert made.code == 0, made.err
    assert "3 examples, ids 1, 7, 255, 300" in made.out
    # Other labels are another prompt.
    data = json.loads(coco.read_text())
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] != 7]
    coco.write_text(json.dumps(data))
    again = incontext(*run)
    assert again.code == 2
    assert "other settings" in again.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--images", "x"], "--images and --format belong to --examples-from"),
        (["--examples-from", "gone"], "gone: no such file or folder"),
        (["--examples-from", "x", "--prompt", "p.safetensors"], "--examples-from with --prompt"),
    ],
)  # fmt: skip
def test_command_says_what_is_wrong(tmp_path, incontext, arguments, text):
    answer = incontext("segment", tmp_path, "--out", tmp_path / "out", *arguments)
    assert answer.code == 2
    assert text in answer.err


def test_snippet_of_the_page_runs(tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[2] / "docs/formats.md"
    [code] = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    picture(tmp_path, "photos/a.png")
    coco_file(tmp_path, [{"segmentation": encode_rle(MASK)}]).rename(tmp_path / "annotations.json")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out == "[('a.png', [3], {3: 'cat'})]\n"
