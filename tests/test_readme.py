"""README fits on a screen or two, and what it and CONTRIBUTING name exists.

That its commands and snippets run: `test_docs_commands.py`; links: `test_docs.py`.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORDS = 900


def test_it_is_short():
    assert len(README.split()) <= WORDS


def test_snippet_has_five_lines():
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 5


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_every_command_has_a_row(page):
    """In the table "I want to …"."""
    import typer.main

    from incontext.cli.app import app

    rows = re.findall(r"^\| .*`incontext .*$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    for name in typer.main.get_command(app).commands:
        assert any(re.search(rf"`(?:incontext )?{name}\b", row) for row in rows), name


def extra_sizes(page: str) -> dict[str, str]:
    """MB to download, by extra."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `([a-z]+)` \| [^|]* \| (\d+) \|", text, re.MULTILINE))


def test_every_extra_has_its_size():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = set(project["optional-dependencies"]) - {"dev"}
    assert set(extra_sizes("README.md")) == names
    assert extra_sizes("README.md") == extra_sizes("docs/install.md")


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
