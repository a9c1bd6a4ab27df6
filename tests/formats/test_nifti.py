"""Labels of whole volumes: out of results, back as examples, always at the voxels of the scan."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from incontext import InputError, export, read_examples
from incontext.batch.inputs import find_images, fingerprint
from incontext.batch.manifest import Manifest
from incontext.batch.segment import result_record
from incontext.images.image import read_image
from incontext.images.volume import open_volume
from incontext.inference.segmentation import Segmentation
from tests.images.volumes import AFFINE, drawn_ids, drawn_scan, nibabel, nifti, series, turn

AXES = ["LPS", "RAS", "LAS", "SAR", "PIL"]


def segmented(targets: list[Path], out: Path, ids_of, names=((1, "a"), (3, "b"))) -> Path:
    """A folder as `incontext segment` leaves it; `ids_of(image)` are the labels of each slice."""
    names = dict(names)
    ids = {str(i): {"name": n, "color": (i % 256, 9, 9)} for i, n in names.items()}
    manifest = Manifest(out, {}, ids)
    for target in find_images(targets, out):
        image = read_image(target.path)
        labels = np.ascontiguousarray(ids_of(target)).astype(np.int32)
        one = Segmentation(
            labels, np.ones(labels.shape, np.float32), dict.fromkeys(names, 0.9), image, (),
            {i: (i % 256, 9, 9) for i in names}, names,
        )  # fmt: skip
        files = one.save(out, target.name)
        record = result_record(one, fingerprint(target.path), files, out, [])
        manifest.results[target.name] = record
    manifest.save()
    return out


def slices_of(path: Path, values: np.ndarray):
    """Stored values of a volume as the labels of its slices."""
    volume = open_volume(path)
    slices = dict(zip(volume.slices, volume.cut(values), strict=True))
    return lambda target: slices[target.path]


@pytest.mark.parametrize("plane", ["", "/coronal", "/sagittal"])
@pytest.mark.parametrize("axes", AXES)
def test_labels_come_back_at_their_voxels(tmp_path, axes, plane):
    ids, affine = turn(drawn_ids(), axes)
    path = nifti(tmp_path / "in/a.nii.gz", drawn_scan(ids), affine, descrip=b"of a scanner")
    target = Path(f"{path}{plane}")
    out = segmented([target], tmp_path / "out", slices_of(target, ids))
    export(out, "nifti", tmp_path / "maps")
    [file] = (tmp_path / "maps").iterdir()
    assert file.name == f"a{plane.replace('/', '_')}.nii.gz"
    labels, scan = nibabel.load(file), nibabel.load(path)
    assert np.array_equal(np.asarray(labels.dataobj), ids)
    assert labels.get_data_dtype() == np.uint8
    for key in ("qform_code", "sform_code", "pixdim", "srow_x", "quatern_b", "descrip"):
        assert np.array_equal(labels.header[key], scan.header[key])
    # In again, along the plane that the pictures are given in.
    examples = list(read_examples(file, images=target))
    stack = {e.source.removeprefix("a.nii.gz/"): e.labels.ids for e in examples}
    volume = open_volume(target)
    for slice_path, truth in zip(volume.slices, volume.cut(ids), strict=True):
        name = f"{slice_path.parent.name}/{slice_path.name}"
        assert (name in stack) == truth.any()
        assert np.array_equal(stack.get(name, truth), truth)


@pytest.mark.parametrize("axes", AXES)
def test_labels_stored_in_another_direction_fit(tmp_path, axes):
    """By place, not by index: tools differ in how they store what they were given."""
    scan = nifti(tmp_path / "scan.nii.gz", drawn_scan(drawn_ids()))
    labels = nifti(tmp_path / "labels.nii.gz", *turn(drawn_ids(), axes))
    for example in read_examples(labels, images=scan):
        brightness = np.asarray(example.image)[..., 0]
        assert brightness[example.labels.ids == 3].min() > 200
        assert brightness[example.labels.ids == 0].max() < 100


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float32", "float64", ">u2"])
def test_data_types_of_labels(tmp_path, dtype):
    scan = nifti(tmp_path / "scan.nii", drawn_scan(drawn_ids()))
    labels = nifti(tmp_path / "labels.nii", drawn_ids().astype(dtype))
    counts = sum((e.labels.ids == 3).sum() for e in read_examples(labels, images=scan))
    assert counts == (drawn_ids() == 3).sum()


def test_scaled_labels(tmp_path):
    """Ids are values times the slope of the header."""
    ids = drawn_ids()
    scan = nifti(tmp_path / "scan.nii", drawn_scan(ids))
    image = nibabel.Nifti1Image(ids.astype(np.uint8), AFFINE)
    image.header.set_slope_inter(2, 1)
    image.to_filename(tmp_path / "labels.nii")
    content = bytearray((tmp_path / "labels.nii").read_bytes())
    content[352:] = ids.tobytes("F")
    (tmp_path / "labels.nii").write_bytes(content)
    [first, *_] = read_examples(tmp_path / "labels.nii", images=scan)
    assert first.labels.present == [1, 7]


def test_ids_over_255_are_kept(tmp_path):
    ids = drawn_ids().astype(np.uint16) * 100
    path = nifti(tmp_path / "a.nii", drawn_scan(drawn_ids()))
    names = {100: "a", 300: "b"}
    out = segmented([path], tmp_path / "out", slices_of(path, ids), names)
    export(out, "nifti", tmp_path / "maps")
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / "maps/a.nii.gz").dataobj), ids)


def test_255_beside_ids_is_an_id(tmp_path):
    ids = drawn_ids()
    ids[ids == 3] = 255
    scan = nifti(tmp_path / "scan.nii", drawn_scan(drawn_ids()))
    present = [e.labels.present for e in read_examples(nifti(tmp_path / "l.nii", ids), images=scan)]
    assert present[0] == [255]
    assert [1, 255] in present


def test_folders_of_volumes(tmp_path):
    ids = drawn_ids()
    for name in ("a", "deep/b"):
        nifti(tmp_path / f"scans/{name}.nii.gz", drawn_scan(ids))
    values = {"a": ids, "b": ids[::-1]}

    def ids_of(target):
        volume = open_volume(target.path)
        number = volume.slices.index(target.path)
        return volume.cut(values[volume.name])[number]

    out = segmented([tmp_path / "scans"], tmp_path / "out", ids_of)
    export(out, "nifti", tmp_path / "maps")
    for name, stored in (("a", ids), ("deep/b", ids[::-1])):
        again = nibabel.load(tmp_path / f"maps/{name}.nii.gz")
        assert np.array_equal(np.asarray(again.dataobj), stored)
    first = (tmp_path / "maps/a.nii.gz").read_bytes()
    with pytest.raises(InputError, match="is not empty; choose another --out"):
        export(out, "nifti", tmp_path / "maps")
    export(out, "nifti", tmp_path / "maps", overwrite=True)
    assert (tmp_path / "maps/a.nii.gz").read_bytes() == first
    examples = list(read_examples(tmp_path / "maps", images=tmp_path / "scans"))
    assert sum((e.labels.ids == 1).sum() for e in examples) == 2 * (ids == 1).sum()
    with pytest.raises(InputError, match=r"a.nii.gz: no scan of this name"):
        list(read_examples(tmp_path / "maps", images=tmp_path / "scans/deep"))


def test_other_formats_get_slices_as_pictures(tmp_path):
    pytest.importorskip("scipy", reason="needs SciPy (export extra)")
    ids = drawn_ids()
    path = nifti(tmp_path / "a.nii", drawn_scan(ids))
    out = segmented([path], tmp_path / "out", slices_of(path, ids))
    export(out, "yolo", tmp_path / "yolo")
    read = {e.source: e for e in read_examples(tmp_path / "yolo")}
    assert len(read) == 8
    assert np.array_equal(read["004.png"].labels.ids, open_volume(path).cut(ids)[4])
    results = {e.source: e for e in read_examples(out)}
    assert np.array_equal(results["a.nii/axial/004"].image, read["004.png"].image)


def test_series_become_volumes_in_space(tmp_path):
    """Slices in order of their place, and the affine that nibabel would give the same voxels."""
    ids = drawn_ids()
    folder = series(tmp_path / "in/ct", drawn_scan(ids), WindowCenter=600, WindowWidth=1600)
    numbers = {f"IM{(number * 5) % 8:04}": number for number in range(8)}
    out = segmented([folder], tmp_path / "out", lambda t: ids[:, :, numbers[t.name]].T)
    export(out, "nifti", tmp_path / "maps")
    labels = nibabel.load(tmp_path / "maps/ct.nii.gz")
    assert np.allclose(labels.affine, AFFINE)
    assert np.array_equal(np.asarray(labels.dataobj), ids)
    assert labels.header.get_xyzt_units()[0] == "mm"
    for images in (folder, tmp_path / "in"):  # the series itself, or a folder of scans
        examples = list(read_examples(tmp_path / "maps", images=images)) if images != folder else (
            list(read_examples(tmp_path / "maps/ct.nii.gz", images=images))
        )  # fmt: skip
        assert len(examples) == len([n for n in range(8) if ids[:, :, n].any()])
        for example in examples:
            assert np.array_equal(example.labels.ids, ids[:, :, numbers[example.source]].T)


def test_series_in_one_folder_are_told_apart_by_their_results(tmp_path):
    ids = drawn_ids()
    folder = series(tmp_path / "ct", drawn_scan(ids))
    for file in series(tmp_path / "other", drawn_scan(ids), SeriesInstanceUID="1.9").iterdir():
        file.rename(folder / f"second{file.name}")
    out = segmented([folder], tmp_path / "out", lambda t: np.zeros((20, 24)))
    export(out, "nifti", tmp_path / "maps")
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["ct_1.2.3.nii.gz", "ct_1.9.nii.gz"]
    with pytest.raises(InputError, match=r"ct: slices of 2 series \(such as 1.2.3\)"):
        list(read_examples(tmp_path / "maps/ct_1.9.nii.gz", images=folder))


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda folder: (folder / "IM0005").unlink(), "not evenly spaced: some are missing"),
        (lambda folder: series(folder / "x", drawn_scan(drawn_ids()[:9])), "different size"),
        (lambda folder: series(folder / "x", drawn_scan(drawn_ids())), "several lie at one place"),
        (
            lambda folder: series(folder, drawn_scan(drawn_ids()), ImagePositionPatient=None),
            "do not say where they lie",
        ),
        (lambda folder: [p.unlink() for p in folder.iterdir()], "no slices of a DICOM series"),
    ],
)
def test_series_that_are_no_volume_are_refused(tmp_path, edit, text):
    folder = series(tmp_path / "ct", drawn_scan(drawn_ids()))
    edit(folder)
    for file in folder.glob("x/*"):
        file.rename(folder / f"x{file.name}")
    with pytest.raises(InputError) as error:
        list(read_examples(nifti(tmp_path / "l.nii", drawn_ids()), images=folder))
    assert text in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("values", "affine", "text"),
    [
        (drawn_ids()[:, :, :7], AFFINE, "l.nii: 24×20×7 voxels, its scan"),
        (drawn_ids() + 0.5, AFFINE, "l.nii: 0.5 is no id; accepted: whole numbers"),
        (np.full((24, 20, 8), np.nan), AFFINE, "l.nii: nan is no id"),
        (drawn_ids().astype(np.int16) - 1, AFFINE, "l.nii: ids -1 … 2; accepted: 0 … 65535"),
        (drawn_ids().astype(np.int32) * 70_000, AFFINE, "l.nii: ids 0 … 210000; accepted"),
        (drawn_ids(), np.eye(4), "l.nii: lies elsewhere than its scan"),
        (np.zeros((24, 20, 8, 2), np.uint8), AFFINE, "l.nii: 4-D, 24×20×8×2"),
        (np.zeros((24, 20, 8), np.uint8), AFFINE, "l.nii: no labelled picture in it"),
    ],
)
def test_labels_that_are_refused(tmp_path, values, affine, text):
    scan = nifti(tmp_path / "scan.nii", drawn_scan(drawn_ids()))
    with pytest.raises(InputError) as error:
        list(read_examples(nifti(tmp_path / "l.nii", values, affine), images=scan))
    assert text in str(error.value)


def test_export_refuses_what_is_no_whole_volume(tmp_path):
    ids = drawn_ids()
    path = nifti(tmp_path / "a.nii.gz", drawn_scan(ids))
    part = segmented([path / "axial/003"], tmp_path / "part", slices_of(path, ids))
    with pytest.raises(InputError, match=r"a.nii.gz: results of 1 of 8 slices"):
        export(part, "nifti", tmp_path / "maps")
    assert not (tmp_path / "maps").exists()
    whole = segmented([path], tmp_path / "whole", slices_of(path, ids))
    with pytest.raises(InputError, match="is the segmented picture itself"):
        export(whole, "nifti", tmp_path, overwrite=True)
    picture = tmp_path / "p.png"
    read_image(path / "axial/003").save(picture)
    plain = segmented([picture], tmp_path / "plain", lambda t: np.zeros((20, 24)))
    with pytest.raises(InputError, match=r"p.png: no slice of a NIfTI volume"):
        export(plain, "nifti", tmp_path / "maps")


@pytest.fixture
def segment(incontext, tiny_checkpoint, tmp_path):
    def run(*args: object):
        return incontext(
            "segment", "--checkpoint", tiny_checkpoint, "--out", tmp_path / "out", *args
        )

    return run


def test_command_segments_volumes(segment, incontext, tmp_path):
    """A scan with three labelled slices fills the others; a bad volume is reported."""
    ids = drawn_ids()
    labels = np.where(np.isin(np.arange(8), (2, 3, 4)), ids, 0).astype(np.uint8)
    scan = nifti(tmp_path / "in/scan.nii.gz", drawn_scan(ids))
    nifti(tmp_path / "in/bad.nii", np.zeros((4, 5, 6, 2)))
    example = ("--example", scan, nifti(tmp_path / "labels.nii.gz", labels))
    answer = segment(*example, tmp_path / "in")
    assert answer.code == 1
    assert "bad.nii: 4-D" in answer.err
    (tmp_path / "in/bad.nii").unlink()
    again = segment(*example, scan)
    assert again.code == 0, again.err
    assert "8 of 8 pictures are finished already" in again.out
    (tmp_path / "out/scan/axial/003.png").unlink()
    assert "7 of 8 pictures are finished" in segment(*example, scan).out
    assert incontext(
        "export", tmp_path / "out", "--to", "nifti", "--out", tmp_path / "maps"
    ).code == 0  # fmt: skip
    assert nibabel.load(tmp_path / "maps/scan.nii.gz").shape == ids.shape
    # Other labels are another prompt, and an edited scan is segmented anew.
    nifti(tmp_path / "labels.nii.gz", ids)
    assert "examples_from" in segment(*example, scan).err
    settings = json.loads((tmp_path / "out/results.json").read_text())["settings"]
    assert len(settings["examples_from"]) == 3
    answer = segment(*example, "--ignore", 255, scan)
    assert "--ignore with a label volume" in answer.err


def test_pictures_and_series_as_examples_of_slices(segment, tmp_path):
    ids = drawn_ids()
    scan = nifti(tmp_path / "scan.nii.gz", drawn_scan(ids))
    labels = nifti(tmp_path / "labels.nii.gz", ids)
    folder = series(tmp_path / "ct", drawn_scan(ids))
    mask = tmp_path / "mask.png"
    Image.fromarray(np.ascontiguousarray(ids[:, :, 3].T)).save(mask)
    for image, label in ((scan / "axial/003", mask), (folder, labels), (folder / "IM0007", mask)):
        answer = segment("--example", image, label, "--overwrite", folder, scan / "axial/002")
        assert answer.code == 0, answer.err
        assert "of 9 pictures" in answer.out
    answer = segment("--example", scan, mask, scan)
    assert answer.code == 2
    assert "a volume, not a picture" in answer.err


@pytest.mark.slow
def test_workers_and_shards_share_a_volume(segment, tmp_path):
    scan = nifti(tmp_path / "scan.nii.gz", drawn_scan(drawn_ids()))
    example = ("--example", scan, nifti(tmp_path / "labels.nii.gz", drawn_ids()))
    for shard in range(2):
        answer = segment(*example, "--shard", f"{shard}/2", scan)
        assert answer.code == 0, answer.err
    export(tmp_path / "out", "nifti", tmp_path / "maps")
    answer = segment(
        *example, "--overwrite", "--engine", "processes", "--workers", 2, "--batch-size", 2, scan
    )
    assert answer.code == 0, answer.err
    export(tmp_path / "out", "nifti", tmp_path / "again")
    files = [tmp_path / name / "scan.nii.gz" for name in ("maps", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("nibabel", lambda folder: nifti(folder / "a.nii", drawn_ids()) / "axial/000"),
        ("pydicom", lambda folder: series(folder / "ct", drawn_ids()) / "IM0000"),
    ],
)
def test_missing_extra_is_named(tmp_path, module, make):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        f"from incontext import InputError, read_image\n"
        f"try: read_image({str(make(tmp_path))!r})\n"
        f"except InputError as error: print(error)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert f"needs {module}: pip install 'incontext-seg[volumes]'" in process.stdout
