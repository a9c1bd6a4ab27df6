"""`incontext video`: real files in, results in a folder, gone on with after every accident."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from incontext.inference.segmentation import Segmentation
from incontext.labels import coco
from incontext.video.monitor import QualityMonitor, frames_to_review
from incontext.video.run import STATE
from incontext.video.video_file import VideoFile, writer

SIZE = (64, 48)


def picture(index: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 120, (SIZE[1], SIZE[0], 3), np.uint8)
    pixels[10:30, 5 + index % 20 : 25 + index % 20] = (220, 60, 40)
    return Image.fromarray(pixels)


def film(path: Path, count: int = 8, times: list[int] | None = None) -> Path:
    base = Fraction(1, 1000) if times else None
    with writer(path, SIZE, Fraction(25), base) as write:
        for index in range(count):
            write(picture(index), times[index] if times else None)
    return path


def mask(path: Path, *, palette: bool = False) -> Path:
    ids = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    ids[10:30, 5:25] = 3 if palette else 1
    image = Image.fromarray(ids)
    if palette:
        image.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8, 200, 30, 60])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


@pytest.fixture
def arguments(tmp_path, tiny_checkpoint) -> list[object]:
    return ["video", film(tmp_path / "clip.mp4"), "--labels", mask(tmp_path / "m.png"),
            "--out", tmp_path / "out", "--checkpoint", tiny_checkpoint, "--keep", 2]  # fmt: skip


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def files(out: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (out / "Annotations/clip").iterdir()}


def test_a_whole_run(incontext, arguments, tmp_path):
    arguments[3] = mask(tmp_path / "p.png", palette=True)
    answer = incontext(*arguments, "--name", "3=red box")
    assert answer.code == 0, answer.err
    assert "id 3 (red box): in " in answer.out
    out = tmp_path / "out"
    found = results(out)
    assert [f["index"] for f in found["frames"]] == list(range(8))
    assert found["ids"]["3"] == {"name": "red box", "color": [200, 30, 60]}
    for entry in found["frames"]:
        with Image.open(out / entry["file"]) as image:
            assert image.mode == "P"
            assert image.getpalette()[9:12] == [200, 30, 60]
            labels = np.asarray(image)
        decoded = coco.decode_rle(entry["objects"]["3"]["rle"], SIZE)
        np.testing.assert_array_equal(decoded, labels == 3)
        assert entry["objects"]["3"]["seen"]["pixels"] == decoded.sum()
    overlay = VideoFile(out / "overlay.mp4")
    assert (overlay.total, overlay.rate) == (8, 25)
    assert overlay.at(0).size == SIZE
    assert sorted(p.name for p in out.iterdir()) == ["Annotations", "overlay.mp4", "results.json"]
    before = files(out)
    again = incontext(*arguments, "--name", "3=red box")
    assert again.code == 0
    assert "finished already" in again.out
    assert files(out) == before


def test_overlay_keeps_the_times_of_frames(incontext, arguments, tmp_path):
    times = [0, 40, 300, 340, 380, 900, 940, 1000]
    arguments[1] = film(tmp_path / "clip.mp4", 8, times)
    assert incontext(*arguments).code == 0
    made = VideoFile(tmp_path / "out/overlay.mp4")
    seen = [round(float(made.pts * made.time_base * 1000)) for _ in made.forward()]
    assert seen == times


def test_folder_keeps_names_and_takes_a_rate(incontext, arguments, tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    for index in range(3):
        picture(index).save(folder / f"{index * 5:05d}.jpg")
    arguments[1] = folder
    answer = incontext(*arguments, "--rate", 10)
    assert answer.code == 0, answer.err
    assert sorted(files(tmp_path / "out")) == ["00000.png", "00005.png", "00010.png"]
    assert VideoFile(tmp_path / "out/overlay.mp4").rate == 10


def test_labels_of_other_frames(incontext, arguments, tmp_path):
    arguments[3] = f"4={mask(tmp_path / 'm.png')}"
    assert incontext(*arguments, "--no-overlay").code == 0
    found = results(tmp_path / "out")["frames"]
    assert [f["index"] for f in found] == list(range(8))  # in order, both ways from frame 4
    assert found[4]["objects"]["1"]["seen"]["pixels"] == 400
    assert not (tmp_path / "out/overlay.mp4").exists()


def test_prompt_file_instead_of_labels(incontext, arguments, tmp_path, tiny_checkpoint):
    picture(0).save(tmp_path / "e.png")
    # A joint checkpoint's prompt cannot be joined by frames: said, and what to do instead.
    made = incontext("prompt", "--example", tmp_path / "e.png", mask(tmp_path / "m.png"), "--out",
                     tmp_path / "p.safetensors", "--checkpoint", tiny_checkpoint)  # fmt: skip
    assert made.code == 0
    rest = [*arguments[:2], *arguments[4:]]
    answer = incontext(*rest, "--prompt", tmp_path / "p.safetensors")
    assert answer.code == 2
    assert "pass its examples instead" in answer.err
    answer = incontext(*rest, "--example", tmp_path / "e.png", tmp_path / "m.png")
    assert answer.code == 0, answer.err
    assert len(results(tmp_path / "out")["frames"]) == 8


def run(arguments: list[object], **options) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "incontext", *map(str, arguments)], capture_output=True, text=True,
        check=False, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, **options,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.slow
def test_stopped_runs_go_on(arguments, tmp_path, incontext, how):
    """Killed without warning, and interrupted: what is finished is not done again."""
    arguments[1] = film(tmp_path / "clip.mp4", 24)
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-m", "incontext", *map(str, arguments)], stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:  # fmt: skip
        while process.poll() is None and not (out / "Annotations/clip/00005.png").exists():
            time.sleep(0.01)
        process.send_signal(how)
        errors = process.communicate()[1]
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "finished frames are kept" in errors
    assert "Traceback" not in errors
    done = files(out)
    assert 6 <= len(done) < 24
    assert incontext(*arguments).code == 0
    after = files(out)
    assert len(after) == 24
    # At most the frame that was under way is done twice.
    assert sum(after[name] != time for name, time in done.items()) <= 1
    fresh = [*arguments[:5], tmp_path / "fresh", *arguments[6:]]
    assert incontext(*fresh).code == 0
    for name in after:
        ours, theirs = (np.asarray(Image.open(o / "Annotations/clip" / name))
                        for o in (out, tmp_path / "fresh"))  # fmt: skip
        np.testing.assert_array_equal(ours, theirs)
    assert results(out)["frames"] == results(tmp_path / "fresh")["frames"]


@pytest.mark.slow
def test_full_disk(arguments, tmp_path, incontext):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

    done = run(arguments, preexec_fn=limit)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "File too large" in done.stderr
    assert not list((tmp_path / "out").rglob("*.part"))
    for path in (tmp_path / "out").rglob("*.png"):
        Image.open(path).load()
    assert incontext(*arguments).code == 0


def test_cut_off_film(incontext, arguments, tmp_path):
    whole = film(tmp_path / "whole.mp4", 60).read_bytes()
    (tmp_path / "clip.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    answer = incontext(*arguments)
    assert answer.code == 0, answer.err
    assert "note: " in answer.out
    found = results(tmp_path / "out")
    assert 3 < len(found["frames"]) < 60
    assert any("damaged" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({1: "nowhere.mp4"}, "no such file"),
        ({3: "nowhere.png"}, "nowhere.png: no such file"),
        ({2: "--rule", 3: "theirs"}, "accepted: ours, official"),
        ({2: "--direction", 3: "up"}, "accepted: auto, forward, backward, both"),
        ({2: "--kind", 3: "any"}, "nothing to look for"),
        ({2: "--rate", 3: 0}, "frames a second"),
        ({3: "9=m.png"}, "no frame 9"),
    ],
)
def test_bad_arguments(incontext, arguments, tmp_path, change, says, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, value in change.items():
        arguments[place] = value
    answer = incontext(*arguments)
    assert answer.code == 2
    assert says in answer.err
    assert len(answer.err.splitlines()) == 1


def test_other_settings_are_refused(incontext, arguments, tmp_path):
    assert incontext(*arguments, "--no-overlay").code == 0
    arguments[-1] = 1
    answer = incontext(*arguments)
    assert answer.code == 2
    assert "other settings (keep)" in answer.err
    assert incontext(*arguments, "--overwrite", "--no-overlay").code == 0
    assert results(tmp_path / "out")["settings"]["keep"] == 1


def test_damaged_state_is_said(incontext, arguments, tmp_path):
    state = tmp_path / "out" / STATE
    state.mkdir(parents=True)
    (state / "frames.jsonl").write_text("{}\n")
    (state / "memory.npz").write_bytes(b"nothing")
    answer = incontext(*arguments)
    assert answer.code == 2
    assert "--overwrite to begin anew" in answer.err
    assert incontext(*arguments, "--overwrite").code == 0


def test_damaged_memory_is_said(incontext, arguments, tmp_path):
    """A cut-off archive, and an empty one."""
    for content in (b"PK\x03\x04cut", b""):
        state = tmp_path / "out" / STATE
        state.mkdir(parents=True, exist_ok=True)
        (state / "frames.jsonl").write_text("{}\n")
        (state / "memory.npz").write_bytes(content)
        answer = incontext(*arguments)
        assert answer.code == 2
        assert "begin anew" in answer.err


def test_results_of_something_else_are_refused(incontext, arguments, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.json").write_text("{}")
    answer = incontext(*arguments)
    assert answer.code == 2
    assert "not of `incontext video`" in answer.err
    assert (tmp_path / "out/results.json").read_text() == "{}"


def test_overwrite_destroys_nothing_before_the_input_was_read(incontext, arguments, tmp_path):
    assert incontext(*arguments, "--no-overlay").code == 0
    before = (tmp_path / "out/results.json").read_bytes()
    Image.new("L", (5, 5)).save(tmp_path / "m.png")
    assert incontext(*arguments, "--no-overlay", "--overwrite").code == 2
    assert (tmp_path / "out/results.json").read_bytes() == before
    assert len(files(tmp_path / "out")) == 8


def test_an_overlay_afterwards(incontext, arguments, tmp_path):
    assert incontext(*arguments, "--no-overlay").code == 0
    before = files(tmp_path / "out")
    assert "finished already" in incontext(*arguments).out
    assert VideoFile(tmp_path / "out/overlay.mp4").total == 8
    assert files(tmp_path / "out") == before


def test_edited_folders_are_noticed(incontext, arguments, tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    for index in range(3):
        picture(index).save(folder / f"{index}.png")
    # Results inside the folder are no frames.
    arguments[1], arguments[5] = folder, folder / "out"
    assert incontext(*arguments, "--no-overlay").code == 0
    assert "finished already" in incontext(*arguments, "--no-overlay").out
    picture(9).resize((32, 24)).save(folder / "2.png")
    answer = incontext(*arguments, "--no-overlay")
    assert answer.code == 2
    assert "other settings (source)" in answer.err


def test_rate_of_a_film_and_names_of_nothing(incontext, arguments):
    answer = incontext(*arguments, "--rate", 10)
    assert answer.code == 2
    assert "--rate is for folders" in answer.err
    answer = incontext(*arguments, "--name", "7=cat")
    assert answer.code == 2
    assert "a name for id 7" in answer.err


def test_color_masks_of_several_frames(incontext, arguments, tmp_path):
    """A color of the first mask keeps its id; one that it lacks is refused, not given an id."""
    for name, color in (("r.png", (255, 0, 0)), ("g.png", (0, 255, 0))):
        pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        pixels[10:30, 5:25] = color
        Image.fromarray(pixels).save(tmp_path / name)
    arguments[3] = tmp_path / "r.png"
    answer = incontext(*arguments, "--labels", f"2={tmp_path / 'g.png'}")
    assert answer.code == 2
    assert "does not name" in answer.err
    colors = ["--color", "1=#ff0000", "--color", "2=#00ff00"]
    answer = incontext(*arguments, "--labels", f"2={tmp_path / 'g.png'}", *colors, "--no-overlay")
    assert answer.code == 0, answer.err
    assert results(tmp_path / "out")["ids"]["2"]["color"] == [0, 255, 0]


def test_a_color_keeps_its_id_in_later_masks(incontext, arguments, tmp_path):
    both = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    both[10:30, 5:25], both[10:30, 35:55] = (255, 0, 0), (0, 255, 0)
    red = np.where(both[..., :1] > 0, both, 0).astype(np.uint8)
    Image.fromarray(both).save(tmp_path / "both.png")
    Image.fromarray(red).save(tmp_path / "red.png")
    arguments[3] = tmp_path / "both.png"
    answer = incontext(*arguments, "--labels", f"3={tmp_path / 'red.png'}", "--no-overlay")
    assert answer.code == 0, answer.err
    assert "labels of frame 3 lack id 1" in answer.err + answer.out
    frames = results(tmp_path / "out")["frames"]
    assert frames[0]["objects"]["2"]["seen"]["pixels"] == 400  # red, by ascending (r, g, b)
    assert frames[3]["objects"]["2"]["seen"]["pixels"] == 400


def test_objects_added_later(incontext, arguments, tmp_path):
    """A mask of the new one alone says nothing of the others."""
    late = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    late[30:40, 40:55] = 5
    Image.fromarray(late).save(tmp_path / "late.png")
    answer = incontext(*arguments, "--add", f"3={tmp_path / 'late.png'}", "--no-overlay")
    assert answer.code == 0, answer.err
    assert "lack" not in answer.err + answer.out
    frames = results(tmp_path / "out")["frames"]
    assert frames[3]["objects"]["5"]["seen"]["pixels"] >= 150
    both = incontext(*arguments, "--add", f"0={tmp_path / 'late.png'}", "--overwrite")
    assert both.code == 2
    assert "both name frame 0" in both.err


def test_labels_among_the_results_are_refused(incontext, arguments, tmp_path):
    """They would be written over, and gone if the new run stops."""
    assert incontext(*arguments, "--no-overlay").code == 0
    corrected = tmp_path / "out/Annotations/clip/00003.png"
    answer = incontext(*arguments, "--labels", f"3={corrected}", "--overwrite")
    assert answer.code == 2
    assert "lies among the results" in answer.err
    assert corrected.is_file()
    answer = incontext(*arguments, "--labels", f"x={corrected}", "--overwrite")
    assert "'x' is no frame" in answer.err


def test_coco_labels_of_a_folder(incontext, arguments, tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    for index in range(2):
        picture(index).save(folder / f"{index}.png")
    box = [5, 10, 25, 10, 25, 30, 5, 30]
    annotation = {"id": 1, "image_id": 1, "category_id": 4, "segmentation": [box]}
    about = {"images": [{"id": 1, "file_name": "0.png"}], "annotations": [annotation]}
    (tmp_path / "c.json").write_text(json.dumps(about))
    arguments[1], arguments[3] = folder, tmp_path / "c.json"
    answer = incontext(*arguments, "--no-overlay")
    assert answer.code == 0, answer.err
    assert results(tmp_path / "out")["frames"][0]["objects"]["4"]["seen"]["pixels"] > 300


def seen(
    monitor: QualityMonitor, pixels: int, presence: float = 1.0, trust: float | None = None,
    quality: float = 0.9,
):  # fmt: skip
    labels = np.zeros((20, 20), np.int32)
    labels.flat[:pixels] = 1
    result = Segmentation(labels, np.ones((20, 20), np.float32), {1: presence}, picture(0), (), {},
                          {}, {1: quality})  # fmt: skip
    return monitor.update(0, result, {} if trust is None else {1: trust})[1]


def test_drift_is_noticed():
    monitor = QualityMonitor()
    assert not seen(monitor, 100).warning
    assert not monitor.frames_to_review()
    assert not seen(monitor, 120).warning
    assert "unsure" in seen(monitor, 110, trust=0.4).warning
    assert monitor.frames_to_review() == [0]
    assert "times as large" in seen(monitor, 300).warning
    assert "there or not" in seen(monitor, 110, presence=0.55).warning
    assert seen(monitor, 0, presence=0.0).warning == "gone"
    assert seen(monitor, 110, trust=0.8).confidence == 0.8
    assert seen(monitor, 110).confidence == 0.9
    assert "unsure" in seen(monitor, 110, quality=0.5).warning
    monitor.reset_baseline()
    assert not seen(monitor, 300).warning
    assert frames_to_review({3: 1.0, 5: 2.0, 30: 1.0}) == [5, 30]
