"""The notebooks of demos run from beginning to end, and are kept without what running adds.

Run as a script, this file removes that: `python -m tests.test_notebooks` after editing one.
"""

import ast
import json
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.test_names import bound_names, hides_its_type

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "demos/notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def clean(notebook: dict[str, Any]) -> dict[str, Any]:
    """Remove outputs, counts, and what editors note about themselves."""
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    notebook["metadata"] = METADATA
    return notebook


def serialize(notebook: dict[str, Any]) -> str:
    """Return the file's text as Jupyter writes it, so that diffs show edits only."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def code_of(path: Path) -> ast.Module:
    """What a notebook's code cells say, one after the other."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return ast.parse("\n".join(code))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat: the dev extra")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: the dev extra")
    pytest.importorskip("ipykernel", reason="needs ipykernel: the notebooks extra")
    files = sorted(path.parent.iterdir())
    # The kernel takes this checkout, and puts its temporary folders where pytest removes them.
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    notebook = nbformat.read(path, 4)
    nbclient.NotebookClient(
        notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}},
        timeout=None, startup_timeout=600,  # however busy the machine is
    ).execute()  # fmt: skip
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs), "no picture"
    assert not [output for output in outputs if output.output_type == "error"]
    assert sorted(path.parent.iterdir()) == files


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_clean(path):
    text = path.read_text(encoding="utf-8")
    advice = "python -m tests.test_notebooks"
    assert text == serialize(clean(json.loads(text))), f"{path.name} was run: {advice}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_checks_something(path):
    assert any(isinstance(node, ast.Assert) for node in ast.walk(code_of(path)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_names_say_what_they_are(path):
    assert not [name for name in bound_names(code_of(path)) if hides_its_type(name)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_public_names_only(path):
    """What readers copy must last; training is not public yet."""
    nodes = [node for node in ast.walk(code_of(path)) if isinstance(node, ast.ImportFrom)]
    rooms = {node.module for node in nodes if node.module.startswith("incontext")} - {"incontext"}
    training = {
        "incontext.checkpoints.checkpoint",
        "incontext.model",
        "incontext.training.from_file",
    }
    assert rooms <= (training if path.stem == "6-model" else set())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_code_cell_is_introduced(path):
    kinds = [cell["cell_type"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    assert kinds[0] == "markdown"
    assert ("code", "code") not in set(pairwise(kinds)), path.name


def test_page_lists_every_notebook():
    page = (ROOT / "demos/notebooks/README.md").read_text(encoding="utf-8")
    assert [path.name for path in NOTEBOOKS] == re.findall(r"\]\(([^)]+\.ipynb)\)", page)


def test_former_output_is_noticed():
    cell = {"cell_type": "code", "metadata": {"x": 1}, "outputs": [{}], "execution_count": 3}
    notebook = {"cells": [cell], "metadata": {"kernelspec": {"name": "mine"}}, "nbformat": 4}
    assert clean(notebook)["cells"] == [
        {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    ]
    assert clean(notebook)["metadata"] == METADATA


if __name__ == "__main__":
    for file in NOTEBOOKS:
        file.write_text(serialize(clean(json.loads(file.read_text(encoding="utf-8")))), "utf-8")
