"""Adapters read their dataset's real layout and reproduce figures worked out by hand.

Every class has two pictures, 12 × 12: rows 0–3 are labelled in one, rows 2–5 in the other. Answered
with the example's mask, each episode has IoU 2 rows / 6 rows = 1/3, background 6 rows / 10 rows.
"""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.core.domains import IMAGE_SOURCES, domain
from eval.core.metrics import FewShotIoU
from eval.core.processes import Processes
from eval.core.protocol import class_item
from eval.core.setting import Setting
from eval.core.shared_work import Task, run_tasks
from eval.datasets import FEW_SHOT
from eval.runs.fewshot import episode_task, run
from incontext.errors import InputError
from incontext.labels.coco import encode_rle

SIDE = 12
THIRD, SIXTY = 100 / 3, 60.0


def rows(top: int, bottom: int, value: int = 1, void: int | None = None) -> np.ndarray:
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[top:bottom] = value
    if void is not None:
        ids[void] = 255
    return ids


def two(value: int = 1, void: int | None = None) -> list[np.ndarray]:
    return [rows(0, 4, value, void), rows(2, 6, value, void)]


def image(path: Path, ids: np.ndarray | None = None, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if ids is None:
        Image.new("RGB", (SIDE, SIDE), (90, 120, 60)).save(path)
        return
    picture = Image.fromarray(ids)
    if palette:
        picture.putpalette(np.random.default_rng(0).bytes(768))
    picture.save(path)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def pickled(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))


def copied(examples, picture):
    return examples[0].read()[1] == 1


def measured(name: str, folder: Path, tmp_path: Path, fold: int = 0, most: int = 8) -> FewShotIoU:
    episodes = FEW_SHOT[name].episodes(folder, fold, 1)
    task = episode_task("it", episodes[:most], copied)
    return FewShotIoU(run_tasks([task], name, {}, tmp_path / "out", Processes())["it"])


def figures(meter: FewShotIoU) -> tuple[float, float]:
    return round(meter.miou(), 9), round(meter.fb_iou(), 9)


def by_hand(background: float = SIXTY) -> tuple[float, float]:
    return round(THIRD, 9), round((THIRD + background) / 2, 9)


@pytest.mark.parametrize("listed", [True, False])
def test_pascal5i(tmp_path, listed):
    root = tmp_path / "VOC2012"
    names = [f"2007_{i:06d}" for i in range(4)]
    for i, name in enumerate(names):  # fold 1: classes 6 and 9; the last row is void
        image(root / f"JPEGImages/{name}.jpg")
        ids = two((6, 9)[i // 2], void=11)[i % 2]
        image(root / f"SegmentationClassAug/{name}.png", ids, palette=True)
    if listed:
        pairs = [f"{name}__{(6, 9)[i // 2]:02d}" for i, name in enumerate(names)]
        text(tmp_path / "splits/pascal/val/fold1.txt", *pairs)
    else:
        text(root / "ImageSets/Segmentation/val.txt", *names)
    assert len(FEW_SHOT["pascal-5i"].episodes(tmp_path, 1, 5)[0].examples) == 5
    meter = measured("pascal-5i", tmp_path, tmp_path, fold=1)
    assert figures(meter) == by_hand(100 * 5 / 9)
    assert set(meter.per_class()) == {5, 8}


def test_pascal5i_draws_as_hsnet(tmp_path):
    """The official loop, on the global generator."""
    names = [f"p{i}" for i in range(7)]
    text(tmp_path / "splits/pascal/val/fold0.txt", *[f"{name}__03" for name in names])
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
        for name, ids in zip(holders[index], two(index + 1), strict=True):
            image(root / name)
            image((root / "annotations" / name).with_suffix(".png"), ids)
    pickled(root / "splits/val/fold2.pkl", holders)
    meter = measured("coco-20i", tmp_path, tmp_path, fold=2, most=60)
    assert figures(meter) == by_hand()
    np.random.seed(0)
    for episode in FEW_SHOT["coco-20i"].episodes(tmp_path, 2, 1):
        index = np.random.choice(range(2, 80, 4), 1, replace=False)[0]
        query = name = np.random.choice(holders[index], 1, replace=False)[0]
        while name == query:
            name = np.random.choice(holders[index], 1, replace=False)[0]
        assert (episode.index, episode.query.name) == (index, Path(query).stem)
        assert episode.examples[0].name == Path(name).stem
    pickled(root / "splits/val/fold2.pkl", {2: [Path("x")]})
    with pytest.raises(InputError, match="plain lists"):
        FEW_SHOT["coco-20i"].episodes(tmp_path, 2, 1)


def test_fss1000(tmp_path):
    """Rows 0 … i of picture i; what the official draws come to, worked out beside."""
    for name in ("abacus", "zebra"):
        for i in range(1, 11):
            image(tmp_path / f"FSS-1000/{name}/{i}.jpg")
            image(tmp_path / f"FSS-1000/{name}/{i}.png", rows(0, i, 255))
    text(tmp_path / "splits/fss/test.txt", "zebra", "abacus")
    np.random.seed(0)
    sums = {760: [0, 0], 761: [0, 0]}
    for totals in sums.values():
        for query in (1, 10, 2, 3, 4, 5, 6, 7, 8, 9):  # sorted by name
            shown = query
            while shown == query:
                shown = int(np.random.choice(range(1, 11), 1, replace=False)[0])
            totals[0] += min(shown, query)
            totals[1] += max(shown, query)
    meter = measured("fss-1000", tmp_path, tmp_path, most=20)
    assert meter.per_class() == pytest.approx({i: 100 * a / b for i, (a, b) in sums.items()})


def test_lvis92i(tmp_path):
    root, said = tmp_path / "LVIS", {}
    for category in range(100, 110):
        said[category] = {}
        for i, (top, bottom) in enumerate(((0, 4), (2, 6))):
            name = f"val2017/{category}{i}.jpg"
            image(root / "coco" / name)
            halves = ([0, top, 5, top, 5, bottom, 0, bottom],
                      [5, top, 12, top, 12, bottom, 5, bottom])  # fmt: skip
            said[category][name] = {"annotations": [{"segmentation": [half]} for half in halves]}
    said[7] = {"val2017/1000.jpg": {"annotations": []}}  # too few pictures: no class of any fold
    pickled(root / "lvis_val.pkl", said)
    assert figures(measured("lvis-92i", tmp_path, tmp_path, fold=3)) == by_hand()


def test_lvis92i_draws_as_matcher(tmp_path):
    """The official loop, on the global generator: classes in turn, five pictures each."""
    said = {c: {f"val2017/{c}{i}.jpg": {"annotations": []} for i in range(5)} for c in range(20)}
    pickled(tmp_path / "LVIS/lvis_val.pkl", said)
    np.random.seed(0)
    episodes = FEW_SHOT["lvis-92i"].episodes(tmp_path, 3, 3)
    assert len(episodes) == 2300
    for number, episode in enumerate(episodes):
        names = list(said[(3, 13)[number % 2]])
        query, support = np.random.choice(names, 1, replace=False)[0], []
        while len(support) < 3:
            name = np.random.choice(names, 1, replace=False)[0]
            if name != query:
                support.append(name)
        assert episode.query.name == query
        assert [item.name for item in episode.examples] == support


def test_pascal_part(tmp_path):
    root = tmp_path / "Pascal-Part/VOCdevkit/VOC2010"
    things = {"cat": {"part": {"HEAD": {"train": ["x"], "val": ["a", "b"]}}}}
    text(root / "all_obj_part_to_image.json", json.dumps({"animals": {"object": things}}))
    box = {"xmin": "2", "ymin": "0", "xmax": "10", "ymax": "9"}
    for name, ids in zip("ab", two(), strict=True):
        image(root / f"JPEGImages/{name}.jpg")
        part = {"name": "HEAD", "mask": [encode_rle(ids > 0)]}
        thing = {"name": "cat", "bndbox": box, "parts": [part]}
        text(root / f"Annotations_Part_json_merged_part_classes/{name}.json",
             json.dumps({"object": [thing]}))  # fmt: skip
    meter = measured("pascal-part", tmp_path, tmp_path)
    assert figures(meter) == by_hand(100 * 3 / 7)  # in the box's nine rows
    assert meter.rows[0][2] == 7 * 8  # and eight columns


def two_objects(ids: np.ndarray) -> list[np.ndarray]:
    """The left and the right half of a mask, as two objects."""
    left = np.arange(SIDE) < SIDE // 2
    return [(ids > 0) & left, (ids > 0) & ~left]


def test_pascal_part_draws_as_matcher(tmp_path):
    """A picture, one of its two objects, then the next picture; one drawn already is drawn anew."""
    root = tmp_path / "Pascal-Part/VOCdevkit/VOC2010"
    names = list("abcde")
    things = {"cat": {"part": {"HEAD": {"train": ["x"], "val": names}}}}
    text(root / "all_obj_part_to_image.json", json.dumps({"animals": {"object": things}}))
    for name in names:
        image(root / f"JPEGImages/{name}.jpg")
        cats = [
            {"name": "cat", "parts": [{"name": "HEAD", "mask": [encode_rle(half)]}],
             "bndbox": {"xmin": 6 * n, "ymin": 0, "xmax": 6 * n + 6, "ymax": 12}}
            for n, half in enumerate(two_objects(rows(0, 4)))
        ]  # fmt: skip
        text(root / f"Annotations_Part_json_merged_part_classes/{name}.json",
             json.dumps({"object": cats}))  # fmt: skip
    np.random.seed(0)
    episodes = FEW_SHOT["pascal-part"].episodes(tmp_path, 0, 2)
    assert len(episodes) == 5
    for episode in episodes:
        taken = []
        while len(taken) < 3:
            name = np.random.choice(names, 1, replace=False)[0]
            if name not in taken:
                taken.append(name)
                np.random.choice(2, 1, replace=False)  # of the objects
        assert [episode.query.name, *(item.name for item in episode.examples)] == taken


def test_paco_part_draws_as_matcher(tmp_path):
    """A class, a picture, one of its two objects; examples likewise, none of them the query."""
    root, held, said = tmp_path / "PACO-Part", {}, {}
    for category in range(8):
        held[category] = [{10 * category + i: f"coco/val2017/{category}{i}.jpg"} for i in range(4)]
        for i in range(4):
            said[10 * category + i] = [
                {"category_id": category, "obj_ann_id": n, "obj_bbox": [6 * n, 0, 6, 12],
                 "segmentation": encode_rle(half)} for n, half in enumerate(two_objects(rows(0, 4)))
            ]  # fmt: skip
    for half in ("train", "val"):
        pickled(root / f"paco/paco_part_{half}.pkl", {"cid2img": held, "img2anno": said})
    np.random.seed(0)
    episodes = FEW_SHOT["paco-part"].episodes(tmp_path, 1, 2)
    assert len(episodes) == 2500
    for episode in episodes:
        category = np.random.choice([1, 5], 1, replace=False)[0]
        drawn: list[int] = []
        while len(drawn) < 3:
            number = np.random.choice(4, 1, replace=False)[0]
            if not drawn or number != drawn[0]:
                drawn.append(number)
                np.random.choice(2, 1, replace=False)
        names = [f"val2017/{category}{i}.jpg" for i in drawn]
        assert [episode.query.name, *(item.name for item in episode.examples)] == names


def test_paco_part(tmp_path):
    root, held, said = tmp_path / "PACO-Part", {}, {}
    for category in range(4):
        held[category] = []
        for i, ids in enumerate(two()):
            key, name = 10 * category + i, f"val2017/{category}{i}.jpg"
            image(root / "coco" / name)
            held[category] += [{key: f"datasets/coco/{name}"}] * 2  # twice, as in the file
            said[key] = [{"category_id": category, "obj_ann_id": 5, "obj_bbox": [2, 0, 8.5, 9.2],
                          "segmentation": encode_rle(ids > 0)}]  # fmt: skip
    for part in ("train", "val"):
        pickled(root / f"paco/paco_part_{part}.pkl", {"cid2img": held, "img2anno": said})
    meter = measured("paco-part", tmp_path, tmp_path, fold=1)
    assert figures(meter) == by_hand(100 * 3 / 7)


def test_isaid5i(tmp_path):
    root = tmp_path / "iSAID/val"
    for i, ids in enumerate(two(14)):
        image(root / f"images/P0003_{i}.png")
        image(root / f"semantic_png/P0003_{i}_instance_color_RGB.png", ids)
    meter = measured("isaid-5i", tmp_path, tmp_path, fold=2)
    assert figures(meter) == by_hand()
    assert set(meter.per_class()) == {13}


@pytest.mark.parametrize("groups", [["1/", "2/"], [""]])
def test_isic(tmp_path, groups):
    for number, group in enumerate(groups):
        for i, ids in enumerate(two(255)):
            name = f"ISIC_{number}{i}"
            image(tmp_path / f"ISIC2018_Task1-2_Training_Input/{group}{name}.jpg")
            image(tmp_path / f"ISIC2018_Task1_Training_GroundTruth/{name}_segmentation.png", ids)
    meter = measured("isic", tmp_path, tmp_path)
    assert figures(meter) == by_hand()
    assert set(meter.per_class()) == set(range(len(groups)))


def test_drive(tmp_path):
    for part, number, ids in (("training", "21", 0), ("test", "01", 1)):
        image(tmp_path / f"DRIVE/{part}/images/{number}_{part}.tif")
        image(tmp_path / f"DRIVE/{part}/1st_manual/{number}_manual1.gif", two(255)[ids])
        image(tmp_path / f"DRIVE/{part}/mask/{number}_{part}_mask.gif", rows(0, 8, 255))
    # Seen are rows 0–7: two of background in both, six in either.
    meter = measured("drive", tmp_path, tmp_path)
    assert figures(meter) == by_hand(100 * 2 / 6)
    assert meter.dice() == pytest.approx(50.0)


def test_chase(tmp_path):
    for i in range(22):
        image(tmp_path / f"CHASE_DB1/Image_{i:02d}L.jpg")
        image(tmp_path / f"CHASE_DB1/Image_{i:02d}L_1stHO.png", two(255)[i >= 20])
    meter = measured("chase", tmp_path, tmp_path)
    assert len(meter.rows) == 2
    assert figures(meter) == by_hand()


def test_stare(tmp_path):
    for i in range(11):
        image(tmp_path / f"STARE/all/im{i:04d}.ppm")
        image(tmp_path / f"STARE/labels/im{i:04d}.ah.ppm", two(255)[i >= 10])
    meter = measured("stare", tmp_path, tmp_path)
    assert len(meter.rows) == 1
    assert figures(meter) == by_hand()


def test_hrf(tmp_path):
    for kind in ("dr", "g", "h"):
        for i in range(1, 7):
            suffix = "JPG" if kind == "dr" else "jpg"
            image(tmp_path / f"HRF/images/{i:02d}_{kind}.{suffix}")
            image(tmp_path / f"HRF/manual1/{i:02d}_{kind}.tif", two(255)[i > 5])
    meter = measured("hrf", tmp_path, tmp_path)
    assert len(meter.rows) == 3
    assert figures(meter) == by_hand()


def any_folder(root: Path) -> Path:
    for i, ids in enumerate(two(void=11)):
        image(root / f"images/{i}.png")
        image(root / f"masks/{i}.png", ids)
    return root


def test_folder(tmp_path):
    assert figures(measured("folder", any_folder(tmp_path), tmp_path)) == by_hand(100 * 5 / 9)
    with pytest.raises(InputError, match="more than 2 pictures"):
        FEW_SHOT["folder"].episodes(tmp_path, 0, 2)
    (tmp_path / "masks/1.png").unlink()
    with pytest.raises(InputError, match=r"1\.png: no mask"):
        FEW_SHOT["folder"].episodes(tmp_path, 0, 1)


@pytest.mark.parametrize("name", sorted(FEW_SHOT))
def test_absent_data_is_named(name, tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        FEW_SHOT[name].episodes(tmp_path, 0, 1)


def test_goes_on_where_it_was_killed(tmp_path, tiny_checkpoint, capsys):
    data, out = any_folder(tmp_path / "data"), tmp_path / "out"
    setting = Setting(str(tiny_checkpoint))
    run(FEW_SHOT["folder"], data, setting, [0], [1], 6, out)
    whole = (out / "folder.json").read_text()
    printed = capsys.readouterr().out
    assert "| 1 example, feature ensemble |" in printed
    assert "unknown (--trained-on)" in printed
    [journal] = (out / "folder.journal").iterdir()
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:4]) + '\n{"key": "fold 0, 1", "epi')  # killed while writing
    run(FEW_SHOT["folder"], data, setting, [0], [1], 6, out)
    assert (out / "folder.json").read_text() == whole
    assert json.loads(whole)["rows"][0]["fold 0"]["episodes"] == 6
    with pytest.raises(InputError, match="another evaluation"):
        run(FEW_SHOT["folder"], data, setting, [0], [1], 5, out)
    with pytest.raises(InputError, match="folds 0 … 0"):
        run(FEW_SHOT["folder"], data, setting, [1], [1], 5)


def test_other_data_is_another_evaluation(tmp_path, tiny_checkpoint):
    one, two = any_folder(tmp_path / "one"), any_folder(tmp_path / "two")
    setting, out = Setting(str(tiny_checkpoint)), tmp_path / "out"
    run(FEW_SHOT["folder"], one, setting, [0], [1], 2, out)
    with pytest.raises(InputError, match="another evaluation"):
        run(FEW_SHOT["folder"], two, setting, [0], [1], 2, out)
    image(one / "images/2.png")
    image(one / "masks/2.png", rows(1, 5))
    with pytest.raises(InputError, match="another evaluation"):  # other episodes
        run(FEW_SHOT["folder"], one, setting, [0], [1], 2, out)


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(InputError, match="nothing to evaluate"):
        run_tasks([Task("x", [], lambda: int)], "it", {}, None, Processes())
    with pytest.raises(InputError, match="--out"):
        run_tasks([Task("x", ["a"], lambda: int)], "it", {}, None, Processes(0, 2))


def test_what_another_process_left_is_told(tmp_path):
    """One of two did its share; then one alone does the rest."""
    work = [Task("x", [str(n) for n in range(5)], lambda: lambda n: n * n)]
    with pytest.raises(InputError, match="not all was done"):
        run_tasks(work, "it", {}, tmp_path, Processes(1, 2))
    assert run_tasks(work, "it", {}, tmp_path, Processes()) == {"x": [0, 1, 4, 9, 16]}
    assert [len(p.read_text().splitlines()) for p in sorted((tmp_path / "it.journal").iterdir())] \
        == [1 + 3, 1 + 2]  # fmt: skip


def test_pictures_are_taken_as_they_are_stored(tmp_path):
    """The official code knows no EXIF, so neither do its labels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    image(tmp_path / "a.png", np.ones((4, 8), np.uint8))
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
    assert {one.image_source for one in FEW_SHOT.values()} <= set(IMAGE_SOURCES)
    with pytest.raises(InputError, match="'PASCAL'; accepted: ADE20K"):
        Setting("x", trained_on="VOC,PASCAL")


@pytest.mark.slow
def test_processes_share_the_episodes(tmp_path, tiny_checkpoint):
    data = any_folder(tmp_path / "data")
    run(FEW_SHOT["folder"], data, Setting(str(tiny_checkpoint)), [0], [1], 6, tmp_path / "one")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "eval",
               "folder", "--data", data, "--checkpoint", tiny_checkpoint, "--examples", "1",
               "--episodes", "6", "--threads", "1", "--out", tmp_path / "two"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True,
        check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, both = ((tmp_path / n / "folder.json").read_text() for n in ("one", "two"))
    assert both == one
    assert len(list((tmp_path / "two/folder.journal").iterdir())) == 2
