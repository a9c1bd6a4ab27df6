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
    *ROOT.glob("incontext/weights/*/README.md"),
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


def test_python_snippet_runs(pictures):
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=pictures, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def clip(folder: Path) -> None:
    """The files that the pages about video name."""
    from incontext.movie import writer

    with writer(folder / "clip.mp4", (64, 48), Fraction(25)) as write:
        for _ in range(10):
            write(Image.open(folder / "photo.jpg"), None)
    Image.open(folder / "mask.png").save(folder / "first.png")


def test_video_snippet_runs(pictures):
    clip(pictures)
    text = (ROOT / "docs/video.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=pictures, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 9


def test_video_command_runs(pictures):
    clip(pictures)
    [command] = re.findall(r"^incontext (video .*)$", README, re.MULTILINE)
    assert "id 1 (1): in 10 of 10 frames" in incontext_command(pictures, command)
    assert (pictures / "results/overlay.mp4").is_file()
    assert len(list((pictures / "results/Annotations/clip").glob("*.png"))) == 10


def incontext_command(folder: Path, command: str, *more: str, code: int = 0) -> str:
    words = [w for w in command.partition("#")[0].split() if w]
    done = subprocess.run(
        [sys.executable, "-m", "incontext", *words, *more],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout


def test_commands_run(pictures):
    commands = re.findall(r"^incontext (\w+ .*)$", README, re.MULTILINE)
    names = [command.split()[0] for command in commands]
    assert names == [
        "segment", "prompt", "segment", "doctor", "tune", "segment", "video", "finetune", "segment",
    ]  # fmt: skip
    incontext_command(pictures, commands[0])
    assert (pictures / "results/c.png").is_file()
    assert (pictures / "results/results.json").is_file()
    incontext_command(pictures, commands[1])
    incontext_command(pictures, commands[2], "--overwrite")
    for part in ("images", "labels"):
        (pictures / "my-set" / part).mkdir(parents=True)
    mask = Image.open(pictures / "mask.png").point(lambda v: v // 255)
    for i in range(24):
        mask.save(pictures / f"my-set/labels/{i}.png")
        Image.open(pictures / "photo.jpg").save(pictures / f"my-set/images/{i}.jpg")
    quick = ["--steps", "1", "--episodes", "2", "--size", "32", "--threads", "1"]
    said = incontext_command(pictures, commands[7], *quick)
    assert "learned from 19 pictures, judged by 5 held out" in said
    incontext_command(pictures, commands[8], "--overwrite")
    for i in range(4, 24):  # a few will do for these
        (pictures / f"my-set/images/{i}.jpg").unlink()
    said = incontext_command(pictures, commands[3])
    assert "4 examples" in said
    assert (pictures / "report.html").is_file()
    # The same picture four times: nothing can be gained.
    incontext_command(pictures, commands[4], "--steps", "1", code=3)
    incontext_command(pictures, commands[5], "--overwrite")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.parent.name + "/" + p.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    assert "@" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL), "an unfilled place"


def test_demo_segments_photographs(tmp_path):
    """`make demo`'s command, on real photographs: better than chance by far."""
    pytest.importorskip("skimage")
    done = subprocess.run(
        [sys.executable, "-m", "demos.photographs", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = [float(v) for v in re.findall(r"IoU (\d\.\d+)", done.stdout)]
    assert len(scores) == 4
    assert np.mean(scores) > 0.75
    for line in done.stdout.splitlines():
        if line.strip().endswith(".overlay.jpg"):
            assert Image.open(line.strip()).size > (50, 50)
