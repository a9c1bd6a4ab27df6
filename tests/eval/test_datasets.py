"""Adapters read their dataset's real layout and reproduce figures worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.core.domains import IMAGE_SOURCES, domain
from eval.core.protocol import class_item
from eval.core.setting import Setting
from eval.datasets import FEW_SHOT
from incontext.errors import InputError
from tests.eval.helpers import (
    by_hand,
    figures,
    measure,
    rows,
    two_masks,
    write_folder,
    write_image,
    write_pickle,
    write_text,
)


@pytest.mark.parametrize("listed", [True, False])
def test_pascal5i(tmp_path, listed):
    root = tmp_path / "VOC2012"
    names = [f"2007_{i:06d}" for i in range(4)]
    for i, name in enumerate(names):  # fold 1: classes 6 and 9; the last row is void
        write_image(root / f"JPEGImages/{name}.jpg")
        ids = two_masks((6, 9)[i // 2], void=11)[i % 2]
        write_image(root / f"SegmentationClassAug/{name}.png", ids, palette=True)
    if listed:
        pairs = [f"{name}__{(6, 9)[i // 2]:02d}" for i, name in enumerate(names)]
        write_text(tmp_path / "splits/pascal/val/fold1.txt", *pairs)
    else:
        write_text(root / "ImageSets/Segmentation/val.txt", *names)
    assert len(FEW_SHOT["pascal-5i"].episodes(tmp_path, 1, 5)[0].examples) == 5
    meter = measure("pascal-5i", tmp_path, tmp_path, fold=1)
    assert figures(meter) == by_hand(100 * 5 / 9)
    assert set(meter.per_class()) == {5, 8}


def test_pascal5i_draws_as_hsnet(tmp_path):
    """The official loop, on the global generator."""
    names = [f"p{i}" for i in range(7)]
    write_text(tmp_path / "splits/pascal/val/fold0.txt", *[f"{name}__03" for name in names])
    (tmp_path / "VOC2012").mkdir()
    np.random.seed(0)
    for number, episode in enumerate(FEW_SHOT["pascal-5i"].episodes(tmp_path, 0, 5)):
        query, support = names[number % 7], []
        while len(support) < 5:
            name = np.random.choice(names, 1, replace=False)[0]
            if name != query:
                support.append(name)
        assert episode.query.name == query
        assert [item.name for item in episode.examples] == support
    assert number == 999


def test_coco20i(tmp_path):
    root, holders = tmp_path / "COCO2014", {}
    for index in range(2, 80, 4):  # fold 2
        holders[index] = [f"val2014/COCO_val2014_{index:06d}{i}.jpg" for i in range(2)]
        for name, ids in zip(holders[index], two_masks(index + 1), strict=True):
            write_image(root / name)
            write_image((root / "annotations" / name).with_suffix(".png"), ids)
    write_pickle(root / "splits/val/fold2.pkl", holders)
    meter = measure("coco-20i", tmp_path, tmp_path, fold=2, max_episodes=60)
    assert figures(meter) == by_hand()
    np.random.seed(0)
    for episode in FEW_SHOT["coco-20i"].episodes(tmp_path, 2, 1):
        index = np.random.choice(range(2, 80, 4), 1, replace=False)[0]
        query = name = np.random.choice(holders[index], 1, replace=False)[0]
        while name == query:
            name = np.random.choice(holders[index], 1, replace=False)[0]
        assert (episode.index, episode.query.name) == (index, Path(query).stem)
        assert episode.examples[0].name == Path(name).stem
    write_pickle(root / "splits/val/fold2.pkl", {2: [Path("x")]})
    with pytest.raises(InputError, match="plain lists"):
        FEW_SHOT["coco-20i"].episodes(tmp_path, 2, 1)


def test_fss1000(tmp_path):
    """Rows 0 … i of picture i; what the official draws come to, worked out beside."""
    for name in ("abacus", "zebra"):
        for i in range(1, 11):
            write_image(tmp_path / f"FSS-1000/{name}/{i}.jpg")
            write_image(tmp_path / f"FSS-1000/{name}/{i}.png", rows(0, i, 255))
    write_text(tmp_path / "splits/fss/test.txt", "zebra", "abacus")
    np.random.seed(0)
    sums = {760: [0, 0], 761: [0, 0]}
    for totals in sums.values():
        for query in (1, 10, 2, 3, 4, 5, 6, 7, 8, 9):  # sorted by name
            example = query
            while example == query:
                example = int(np.random.choice(range(1, 11), 1, replace=False)[0])
            totals[0] += min(example, query)
            totals[1] += max(example, query)
    meter = measure("fss-1000", tmp_path, tmp_path, max_episodes=20)
    assert meter.per_class() == pytest.approx({i: 100 * a / b for i, (a, b) in sums.items()})


def test_isaid5i(tmp_path):
    root = tmp_path / "iSAID/val"
    for i, ids in enumerate(two_masks(14)):
        write_image(root / f"images/P0003_{i}.png")
        write_image(root / f"semantic_png/P0003_{i}_instance_color_RGB.png", ids)
    meter = measure("isaid-5i", tmp_path, tmp_path, fold=2)
    assert figures(meter) == by_hand()
    assert set(meter.per_class()) == {13}


@pytest.mark.parametrize("groups", [["1/", "2/"], [""]])
def test_isic(tmp_path, groups):
    for number, group in enumerate(groups):
        for i, ids in enumerate(two_masks(255)):
            name = f"ISIC_{number}{i}"
            write_image(tmp_path / f"ISIC2018_Task1-2_Training_Input/{group}{name}.jpg")
            write_image(
                tmp_path / f"ISIC2018_Task1_Training_GroundTruth/{name}_segmentation.png", ids
            )
    meter = measure("isic", tmp_path, tmp_path)
    assert figures(meter) == by_hand()
    assert set(meter.per_class()) == set(range(len(groups)))


def test_drive(tmp_path):
    for part, number, ids in (("training", "21", 0), ("test", "01", 1)):
        write_image(tmp_path / f"DRIVE/{part}/images/{number}_{part}.tif")
        write_image(tmp_path / f"DRIVE/{part}/1st_manual/{number}_manual1.gif", two_masks(255)[ids])
        write_image(tmp_path / f"DRIVE/{part}/mask/{number}_{part}_mask.gif", rows(0, 8, 255))
    # Seen are rows 0–7: two of background in both, six in either.
    meter = measure("drive", tmp_path, tmp_path)
    assert figures(meter) == by_hand(100 * 2 / 6)
    assert meter.dice() == pytest.approx(50.0)


def test_chase(tmp_path):
    for i in range(22):
        write_image(tmp_path / f"CHASE_DB1/Image_{i:02d}L.jpg")
        write_image(tmp_path / f"CHASE_DB1/Image_{i:02d}L_1stHO.png", two_masks(255)[i >= 20])
    meter = measure("chase", tmp_path, tmp_path)
    assert len(meter.rows) == 2
    assert figures(meter) == by_hand()


def test_stare(tmp_path):
    for i in range(11):
        write_image(tmp_path / f"STARE/all/im{i:04d}.ppm")
        write_image(tmp_path / f"STARE/labels/im{i:04d}.ah.ppm", two_masks(255)[i >= 10])
    meter = measure("stare", tmp_path, tmp_path)
    assert len(meter.rows) == 1
    assert figures(meter) == by_hand()


def test_hrf(tmp_path):
    for kind in ("dr", "g", "h"):
        for i in range(1, 7):
            suffix = "JPG" if kind == "dr" else "jpg"
            write_image(tmp_path / f"HRF/images/{i:02d}_{kind}.{suffix}")
            write_image(tmp_path / f"HRF/manual1/{i:02d}_{kind}.tif", two_masks(255)[i > 5])
    meter = measure("hrf", tmp_path, tmp_path)
    assert len(meter.rows) == 3
    assert figures(meter) == by_hand()


def test_folder(tmp_path):
    assert figures(measure("folder", write_folder(tmp_path), tmp_path)) == by_hand(100 * 5 / 9)
    with pytest.raises(InputError, match="more than 2 pictures"):
        FEW_SHOT["folder"].episodes(tmp_path, 0, 2)
    (tmp_path / "masks/1.png").unlink()
    with pytest.raises(InputError, match=r"1\.png: no mask"):
        FEW_SHOT["folder"].episodes(tmp_path, 0, 1)


@pytest.mark.parametrize("name", sorted(FEW_SHOT))
def test_absent_data_is_named(name, tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        FEW_SHOT[name].episodes(tmp_path, 0, 1)


def test_pictures_are_taken_as_they_are_stored(tmp_path):
    """The official code knows no EXIF, so neither do its labels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    write_image(tmp_path / "a.png", np.ones((4, 8), np.uint8))
    picture, _ = class_item(tmp_path / "a.jpg", tmp_path / "a.png", 1).read()
    assert picture.size == (8, 4)
    assert Setting("x").read_examples([class_item(tmp_path / "a.jpg", tmp_path / "a.png", 1)], 8)


def test_domains():
    assert domain("incontext-small", "VOC").startswith("in-domain: VOC pictures of 12")
    assert domain("incontext-small", "VOC", "ISIC").startswith("in-domain: VOC pictures of 12")
    assert domain("incontext-small", "ISIC", "isic, COCO") == "in-domain: ISIC"
    assert domain("incontext-small", "FSS-1000") == "strict"
    assert domain("mine", "FSS-1000") == "unknown (--trained-on)"
    assert domain("mine", "FSS-1000", "none") == domain("mine", "FSS-1000", "COCO") == "strict"
    assert {protocol.image_source for protocol in FEW_SHOT.values()} <= set(IMAGE_SOURCES)
    with pytest.raises(InputError, match="'PASCAL'; accepted: ADE20K"):
        Setting("x", trained_on="VOC,PASCAL")
