"""Folders: targets and their names, the manifest, and runs that survive bad files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from incontext import Example, InputError, Predictor
from incontext.batch.inputs import file_hash, find_images
from incontext.batch.manifest import Manifest
from incontext.batch.segment import segment_files
from incontext.inference.prompt import Prompt
from incontext.inference.segmentation import Segmentation


def picture(path: Path, color: str = "red", size: tuple[int, int] = (20, 15)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def names(sources: list[object], out: object = "nowhere") -> list[str]:
    return [target.name for target in find_images(sources, Path(out))]


class TestFindTargets:
    def test_files(self, tmp_path):
        b, a = picture(tmp_path / "b.png"), picture(tmp_path / "a.jpg")
        targets = find_images([str(b), a], tmp_path / "out")
        assert [(t.path, t.name) for t in targets] == [(b, "b"), (a, "a")]

    def test_folder_to_any_depth(self, tmp_path):
        for name in ("z.png", "a/b/c.JPG", "a/d.tiff", "e.webp", "f.gif", "g.bmp"):
            picture(tmp_path / name)
        (tmp_path / "notes.txt").write_text("no picture")
        (tmp_path / "folder.png").mkdir()
        assert names([tmp_path]) == ["a/b/c", "a/d", "e", "f", "g", "z"]

    def test_glob(self, tmp_path):
        for name in ("a/1.png", "b/2.png", "b/deep/3.png", "b/4.jpg"):
            picture(tmp_path / name)
        assert names([tmp_path / "*" / "*.png"]) == ["1", "2"]
        assert names([f"{tmp_path}/**/*.png"]) == ["1", "2", "3"]

    def test_glob_characters_in_a_name(self, tmp_path):
        assert names([picture(tmp_path / "p[1].png")]) == ["p[1]"]

    def test_file_of_any_suffix(self, tmp_path):
        assert names([picture(tmp_path / "p.png").rename(tmp_path / "p.dat")]) == ["p"]

    def test_same_file_twice(self, tmp_path):
        path = picture(tmp_path / "a.png")
        (tmp_path / "deep").mkdir()
        assert names([path, tmp_path, tmp_path / "deep/../a.png"]) == ["a"]

    def test_links_are_images_of_their_own(self, tmp_path):
        path = picture(tmp_path / "a.png")
        (tmp_path / "link.png").symlink_to(path)
        targets = find_images([tmp_path, tmp_path / "link.png"], tmp_path / "out")
        assert [(t.path, t.name) for t in targets] == [
            (path, "a"), (tmp_path / "link.png", "link")
        ]  # fmt: skip

    def test_suffix_tells_apart(self, tmp_path):
        for name in ("a.png", "a.jpg", "b.png", "c.v1.png", "c.v2.png"):
            picture(tmp_path / name)
        assert names([tmp_path]) == ["a_jpg", "a_png", "b", "c.v1", "c.v2"]

    def test_same_name_in_two_folders(self, tmp_path):
        first, second = picture(tmp_path / "x/a.png"), picture(tmp_path / "y/a.png")
        assert names([tmp_path]) == ["x/a", "y/a"]
        with pytest.raises(InputError, match=r"x/a.png and .*would both be written as a_png"):
            find_images([second, first], tmp_path / "out")

    def test_suffix_in_a_name_collides(self, tmp_path):
        for name in ("a.png", "a.jpg", "a_jpg.png"):
            picture(tmp_path / name)
        with pytest.raises(InputError, match="would both be written as a_jpg"):
            find_images([tmp_path], tmp_path / "out")

    def test_names_of_our_own_outputs(self, tmp_path):
        for name in ("a.png", "a.confidence.png", "a.overlay.jpg"):
            picture(tmp_path / name)
        found = names([tmp_path])
        written = [f"{n}{s}" for n in found for s in (".png", ".confidence.png", ".overlay.jpg")]
        assert len(set(written)) == 9

    def test_output_folder_inside(self, tmp_path):
        picture(tmp_path / "a.png")
        picture(tmp_path / "out/b.png")
        assert names([tmp_path], tmp_path / "out") == ["a"]

    def test_results_of_an_earlier_run_inside(self, tmp_path):
        for name in ("a.png", "old/a.png", "old/deep/b.png", "video/00000.png", "mine/c.png"):
            picture(tmp_path / name)
        (tmp_path / "old/results.0-of-2.json").write_text('{\n "settings": {},\n "results": {}}')
        (tmp_path / "video/results.json").write_text('{\n "settings": {},\n "frames": []}')
        (tmp_path / "mine/results.json").write_text('{"score": 1}')
        sources = (tmp_path, f"{tmp_path}/**/*.png")
        for source, expected in zip(sources, (["a", "mine/c"], ["a", "c"]), strict=True):
            with pytest.warns(UserWarning, match="old: left out: results of an earlier run"):
                assert names([source]) == expected
        with pytest.raises(InputError, match=r"old: holds results of an earlier run; give"):
            names([tmp_path / "old"])
        assert names([f"{tmp_path}/old/*.png"]) == ["a"]  # asked for by name

    def test_formats_that_are_not_read(self, tmp_path):
        (tmp_path / "IMG_1.HEIC").write_bytes(b"x")
        with pytest.raises(InputError, match=r"no picture that can be read here, only 1 \.heic"):
            names([tmp_path])
        picture(tmp_path / "a.png")
        picture(tmp_path / "b.avif")
        with pytest.warns(UserWarning, match=r"left out, as they are not read here: 1 \.heic"):
            assert names([tmp_path]) == ["a", "b"]

    def test_output_folder_is_the_target_folder(self, tmp_path):
        path = picture(tmp_path / "a.png")
        for source in (tmp_path, path, tmp_path / "*.png"):
            with pytest.raises(InputError, match="lies in the output folder"):
                find_images([source], tmp_path)

    @pytest.mark.parametrize("source", ["missing.png", "empty", "*.xyz", "text"])
    def test_nothing_found(self, tmp_path, source):
        (tmp_path / "empty").mkdir()
        picture(tmp_path / "a.png")
        with pytest.raises(InputError, match=r"no such file, or no picture in it"):
            find_images([tmp_path / "a.png", tmp_path / source], tmp_path / "out")


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint) -> Predictor:
    return Predictor.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def prompt(predictor) -> Prompt:
    labels = np.zeros((32, 32), np.uint8)
    labels[8:20, 8:20] = 2
    image = np.full((32, 32, 3), 90, np.uint8)
    return predictor.prompt(Example(image, labels), names={2: "coin"})


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three pictures and a broken one."""
    for name, color in (("a", "red"), ("b", "green"), ("sub/c", "blue")):
        picture(tmp_path / "in" / f"{name}.png", color)
    (tmp_path / "in/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    return tmp_path / "in"


class TestSegmentFiles:
    def run(self, predictor, prompt, folder, out, settings=None, overwrite=False, **options):
        targets = find_images([folder], out)
        manifest = Manifest.open(out, settings or {"a": 1}, prompt, overwrite)
        told = []
        todo = [t for t in targets if not manifest.is_finished(t)]
        segment_files(
            predictor, prompt, todo, manifest,
            on_result=lambda image, text: told.append((image.name, text)), **options,
        )  # fmt: skip
        return told

    @pytest.mark.parametrize("batch_size", [1, 2, 8])
    def test_everything_is_written(self, predictor, prompt, folder, tmp_path, batch_size):
        out = tmp_path / "out"
        told = dict(self.run(predictor, prompt, folder, out, batch_size=batch_size))
        assert "broken.jpg" in told.pop("broken")
        assert told == {"a": "", "b": "", "sub/c": ""}
        content = json.loads((out / "results.json").read_text())
        assert content["settings"] == {"a": 1}
        assert content["ids"]["2"]["name"] == "coin"
        assert list(content["failed"]) == [str(folder / "broken.jpg")]
        assert sorted(content["results"]) == ["a", "b", "sub/c"]
        for name, entry in content["results"].items():
            source = folder / f"{name}.png"
            assert entry["source"]["path"] == str(source)
            assert entry["source"]["bytes"] == source.stat().st_size
            assert entry["size"] == [20, 15]
            labels = np.asarray(Image.open(out / entry["files"]["labels"]))
            expected = predictor.predict(source, prompt)
            assert np.array_equal(labels, expected.labels)
            assert entry["ids"]["2"]["pixels"] == (labels == 2).sum()
            assert entry["ids"]["2"]["presence"] == pytest.approx(expected.presence[2], abs=1e-4)
            confidence = np.asarray(Image.open(out / entry["files"]["confidence"]))
            assert np.abs(confidence / 255 - expected.confidence).max() < 0.01
            assert Image.open(out / entry["files"]["overlay"]).size == (20, 15)
            assert 0 <= entry["confidence"] <= 1
        assert not list(out.rglob("*.part"))

    def test_finished_files_are_skipped(self, predictor, prompt, folder, tmp_path):
        out = tmp_path / "out"
        self.run(predictor, prompt, folder, out)
        before = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
        assert [name for name, _ in self.run(predictor, prompt, folder, out)] == ["broken"]
        assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}

    def test_changed_and_lost_files_are_done_again(self, predictor, prompt, folder, tmp_path):
        out = tmp_path / "out"
        self.run(predictor, prompt, folder, out)
        picture(folder / "a.png", "white", (21, 15))
        (out / "b.overlay.jpg").unlink()
        picture(folder / "broken.jpg")
        told = self.run(predictor, prompt, folder, out)
        assert told == [("a", ""), ("b", ""), ("broken", "")]
        content = json.loads((out / "results.json").read_text())
        assert content["failed"] == {}
        assert content["results"]["a"]["size"] == [21, 15]

    def test_touched_file_is_done_again(self, predictor, prompt, folder, tmp_path):
        self.run(predictor, prompt, folder, tmp_path / "out")
        os.utime(folder / "a.png", ns=(1, 1))
        told = self.run(predictor, prompt, folder, tmp_path / "out")
        assert sorted(name for name, _ in told) == ["a", "broken"]

    def test_file_that_breaks_later(self, predictor, prompt, folder, tmp_path):
        out = tmp_path / "out"
        self.run(predictor, prompt, folder, out)
        (folder / "a.png").write_bytes(b"")
        assert dict(self.run(predictor, prompt, folder, out))["a"].endswith("PPM")
        content = json.loads((out / "results.json").read_text())
        assert "a" not in content["results"]
        assert str(folder / "a.png") in content["failed"]

    def test_other_settings(self, predictor, prompt, folder, tmp_path):
        out = tmp_path / "out"
        self.run(predictor, prompt, folder, out, {"a": 1, "b": 2})
        with pytest.raises(InputError, match=r"other settings \(a, c\); choose another folder"):
            self.run(predictor, prompt, folder, out, {"a": 3, "b": 2, "c": 0})
        assert len(self.run(predictor, prompt, folder, out, {"a": 3}, overwrite=True)) == 4

    def test_settings_without_results_bind_nobody(self, predictor, prompt, tmp_path):
        broken = tmp_path / "in/broken.png"
        broken.parent.mkdir()
        broken.write_bytes(b"")
        out = tmp_path / "out"
        self.run(predictor, prompt, broken.parent, out, {"a": 1})
        assert self.run(predictor, prompt, broken.parent, out, {"a": 2})

    def test_frames_are_noted(self, predictor, prompt, tmp_path):
        path = tmp_path / "in/film.gif"
        path.parent.mkdir()
        frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
        frames[0].save(path, save_all=True, append_images=frames[1:])
        self.run(predictor, prompt, path.parent, tmp_path / "out")
        content = json.loads((tmp_path / "out/results.json").read_text())
        assert "2 frames; the first one is used" in content["results"]["film"]["notes"][0]

    def test_name_that_leaves_no_room(self, predictor, prompt, tmp_path):
        for name in ("a", "n" * 245, "z"):
            picture(tmp_path / "in" / f"{name}.png")
        told = dict(self.run(predictor, prompt, tmp_path / "in", tmp_path / "out"))
        assert "too long" in told.pop("n" * 245)
        assert told == {"a": "", "z": ""}
        content = json.loads((tmp_path / "out/results.json").read_text())
        assert sorted(content["results"]) == ["a", "z"]
        assert len(content["failed"]) == 1

    def test_nothing_to_do(self, predictor, prompt, tmp_path):
        manifest = Manifest.open(tmp_path / "out", {}, prompt, False)
        segment_files(predictor, prompt, [], manifest)
        assert json.loads((tmp_path / "out/results.json").read_text())["results"] == {}

    @pytest.mark.parametrize(
        "content",
        [
            "", "{", "[]", "5", "{}", '{"settings": {}}', '{"settings": 5, "results": {}}',
            '{"settings": {}, "results": 5, "ids": {}}',
            '{"settings": {}, "results": {"a": 5}, "ids": {}}',
            '{"settings": {}, "results": {"a": {}}, "ids": {}}',
            '{"settings": {}, "ids": {"2": {}}, "results":'
            ' {"a": {"source": {}, "size": [], "files": {}, "ids": {}}}}',
            "[" * 100_000,
        ],
    )  # fmt: skip
    def test_damaged_manifest(self, prompt, tmp_path, content):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(InputError, match=r"results.json: damaged .*pass overwrite"):
            Manifest.open(tmp_path, {}, prompt, False)
        assert Manifest.open(tmp_path, {}, prompt, True).results == {}


def test_file_hash(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"x")
    second.write_bytes(b"y")
    assert file_hash(first) == "2d711642b726b044"
    assert file_hash(first) != file_hash(second)


class TestSave:
    def segmentation(self, labels, colors):
        height, width = labels.shape
        return Segmentation(
            labels.astype(np.int32), np.zeros((height, width), np.float32),
            dict.fromkeys(colors, 1.0), Image.new("RGB", (width, height)), (), colors,
            {i: str(i) for i in colors},
        )  # fmt: skip

    def test_palette_png(self, tmp_path):
        labels = np.array([[0, 1, 255], [3, 0, 1]])
        colors = {1: (255, 0, 0), 3: (12, 34, 56), 255: (1, 2, 3)}
        files = self.segmentation(labels, colors).save(tmp_path, "x")
        image = Image.open(files["labels"])
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), labels)
        table = np.array(image.getpalette("RGB")).reshape(-1, 3)
        assert all(tuple(table[i]) == rgb for i, rgb in colors.items())
        back = Example(np.zeros((2, 3), np.uint8), files["labels"], ignore="none")
        assert np.array_equal(back.labels.ids, labels)
        assert all(back.labels.colors[i] == rgb for i, rgb in colors.items())

    @pytest.mark.parametrize("labels", [[[0, 300, 65_535]], [[0, 1, 1]], [[0, 0, 0]]])
    def test_large_ids(self, tmp_path, labels):
        labels = np.array(labels)
        colors = {1: (9, 9, 9), 300: (255, 0, 0), 65_535: (0, 255, 0)}
        files = self.segmentation(labels, colors).save(tmp_path, "deep/er/x")
        image = Image.open(files["labels"])
        assert image.mode == "I;16"
        assert np.array_equal(np.asarray(image), labels)

    def test_overlay(self):
        labels = np.zeros((9, 9), np.int32)
        labels[2:7, 2:7] = 1
        result = self.segmentation(labels, {1: (200, 100, 0)})
        overlay = np.asarray(result.overlay(opacity=0.25))
        assert overlay[4, 4].tolist() == [50, 25, 0]
        assert overlay[2, 4].tolist() == [200, 100, 0]  # the border
        assert not overlay[labels == 0].any()

    def test_overlay_longer_than_jpeg_allows(self, tmp_path):
        labels = np.ones((1, 70_000), np.int32)
        files = self.segmentation(labels, {1: (200, 100, 0)}).save(tmp_path, "long")
        assert Image.open(files["overlay"]).size == (70_000, 1)

    def test_mask_of_unknown_id(self):
        result = self.segmentation(np.zeros((2, 2)), {1: (1, 1, 1)})
        with pytest.raises(InputError, match=r"no id 7; the prompt has \[1\]"):
            result.mask(7)


class TestSeveralRunsIntoOneFolder:
    def test_overwriting_one_keeps_the_entries_of_others(
        self, tmp_path, incontext, tiny_checkpoint
    ):
        a, b = picture(tmp_path / "in/a.png"), picture(tmp_path / "in/b.png", "blue")
        mask = tmp_path / "mask.png"
        Image.fromarray(np.eye(15, 20, dtype=np.uint8)).save(mask)
        rest = ("--example", str(a), str(mask), "--checkpoint", str(tiny_checkpoint))
        out = tmp_path / "out"
        assert incontext("segment", str(a), str(b), "--out", str(out), *rest).code == 0
        answer = incontext("segment", str(b), "--out", str(out), "--overwrite", *rest)
        assert answer.code == 0
        assert "of 1 pictures" in answer.out
        results = json.loads((out / "results.json").read_text())["results"]
        assert sorted(results) == ["a", "b"]

    def test_results_of_another_picture_are_not_replaced(
        self, tmp_path, incontext, tiny_checkpoint
    ):
        mask = tmp_path / "mask.png"
        Image.fromarray(np.eye(15, 20, dtype=np.uint8)).save(mask)
        first, second = picture(tmp_path / "x/a.png"), picture(tmp_path / "y/a.png", "blue")
        rest = ("--example", str(first), str(mask), "--checkpoint", str(tiny_checkpoint))
        rest = (*rest, "--out", str(tmp_path / "out"))
        assert incontext("segment", str(first), *rest).code == 0
        answer = incontext("segment", str(second), *rest)
        assert answer.code == 2
        assert "results named a of another picture" in answer.err
