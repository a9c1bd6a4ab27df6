"""What README and the cards say runs, and what they name exists."""

import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("prompts/*.md"),
    *ROOT.glob("incontext/checkpoints/weights/*/README.md"),
]


@pytest.fixture
def pictures(tmp_path):
    """The files that README's snippets name."""
    rng = np.random.default_rng(0)
    for name in ("photo.jpg", "other.jpg", "a.jpg", "b.jpg", "pictures/c.jpg"):
        pixels = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
        pixels[10:30, 20:50] += 150
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 20:50] = 255
    for name in ("mask.png", "other.png"):
        Image.fromarray(mask).save(tmp_path / name)
    return tmp_path


def run(code: str, folder: Path) -> list[str]:
    """Lines that a snippet prints, in a process of its own."""
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


@pytest.mark.slow
def test_python_snippet_runs(pictures):
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(run(code, pictures)) == 2


def clip(folder: Path, frames: int) -> None:
    """The files that the pages about video name."""
    from incontext.video.video_file import writer

    with writer(folder / "clip.mp4", (64, 48), Fraction(25)) as write:
        for _ in range(frames):
            write(Image.open(folder / "photo.jpg"), None)
    Image.open(folder / "mask.png").save(folder / "first.png")


@pytest.mark.slow
def test_video_snippet_runs(pictures):
    clip(pictures, 9)  # the last one that it names is the ninth
    text = (ROOT / "docs/video.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(run(code, pictures)) == 9


@pytest.fixture
def command(pictures, incontext, monkeypatch):
    """A command as README says it, where the pictures are; what it prints."""
    monkeypatch.chdir(pictures)

    def run_line(line: str, *more: object, code: int = 0) -> str:
        answer = incontext(*line.partition("#")[0].split(), *more)
        assert answer.code == code, answer.err
        return answer.out

    return run_line


@pytest.mark.slow
def test_video_command_runs(pictures, command):
    clip(pictures, 3)
    [line] = re.findall(r"^incontext (video .*)$", README, re.MULTILINE)
    assert "id 1 (1): in 3 of 3 frames" in command(line)
    assert (pictures / "results/overlay.mp4").is_file()
    assert len(list((pictures / "results/Annotations/clip").glob("*.png"))) == 3


@pytest.mark.slow
def test_commands_run(pictures, command):
    lines = re.findall(r"^incontext (\w+ .*)$", README, re.MULTILINE)
    names = [line.split()[0] for line in lines]
    assert names == [
        "segment", "prompt", "segment", "doctor", "tune", "segment", "video", "finetune", "segment",
    ]  # fmt: skip
    command(lines[0])
    assert (pictures / "results/c.png").is_file()
    assert (pictures / "results/results.json").is_file()
    command(lines[1])
    command(lines[2], "--overwrite")
    for part in ("images", "labels"):
        (pictures / "my-set" / part).mkdir(parents=True)
    mask = Image.open(pictures / "mask.png").point(lambda v: v // 255)
    for i in range(24):
        mask.save(pictures / f"my-set/labels/{i}.png")
        Image.open(pictures / "photo.jpg").save(pictures / f"my-set/images/{i}.jpg")
    one_thread = ["--threads", 1]
    text = command(lines[7], "--steps", 1, "--episodes", 2, "--size", 32, *one_thread)
    assert "learned from 19 pictures, judged by 5 held out" in text
    command(lines[8], "--overwrite")
    for i in range(3, 24):  # as few as the doctor takes will do
        (pictures / f"my-set/images/{i}.jpg").unlink()
    assert "3 examples" in command(lines[3], *one_thread)
    assert (pictures / "report.html").is_file()
    # The same picture twice: nothing can be gained.
    (pictures / "my-set/images/2.jpg").unlink()
    command(lines[4], "--steps", 1, *one_thread, code=3)
    command(lines[5], "--overwrite")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.parent.name + "/" + p.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    assert "@" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL), "an unfilled place"


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_named_files_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    paths = set(re.findall(r"(?:`|python |pytest )([\w/]+(?:\.py|/))", text))
    assert len(paths) > 10
    for path in paths:
        homes = (ROOT / path, ROOT / "eval/datasets" / path, *(ROOT / "incontext").rglob(path))
        assert any(home.exists() for home in homes), f"{page} names {path}"


def test_every_room_has_a_row():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = [p.name for p in (ROOT / "incontext").iterdir() if (p / "__init__.py").exists()]
    assert len(rooms) > 10
    for room in rooms:
        assert f"\n| `{room}/` |" in text


@pytest.mark.slow
def test_demo_segments_photographs(tmp_path):
    """`make demo`'s command, on real photographs: better than chance by far."""
    pytest.importorskip("skimage")
    process = subprocess.run(
        [sys.executable, "-m", "demos.photographs", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    scores = [float(v) for v in re.findall(r"IoU (\d\.\d+)", process.stdout)]
    assert len(scores) == 4
    assert np.mean(scores) > 0.75
    for line in process.stdout.splitlines():
        if line.strip().endswith(".overlay.jpg"):
            assert Image.open(line.strip()).size > (50, 50)
