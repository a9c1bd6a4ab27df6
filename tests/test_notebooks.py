"""The notebooks of demos run from beginning to end, and are kept without what running adds.

Run as a script, this file removes that: `python tests/test_notebooks.py` after editing one.
"""

import json
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

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


def text_of(path: Path) -> str:
    """All that a reader sees of a notebook that has not been run."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat: the dev extra")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: the dev extra")
    pytest.importorskip("ipykernel", reason="needs ipykernel: the notebooks extra")
    before = sorted(ROOT.glob("*")) + sorted(path.parent.glob("*"))
    # The kernel takes this checkout, and puts its temporary folders where pytest removes them.
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook, folder = nbformat.read(path, 4), {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=folder
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs), "no picture"
    assert not [output for output in outputs if output.output_type == "error"]
    assert sorted(ROOT.glob("*")) + sorted(path.parent.glob("*")) == before


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_clean(path):
    text = path.read_text(encoding="utf-8")
    advice = f"python {Path(__file__).relative_to(ROOT)}"
    assert text == serialize(clean(json.loads(text))), f"{path.name} was run: {advice}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_checks_something(path):
    assert re.search(r"^\s*assert ", text_of(path), re.MULTILINE), f"{path.name} asserts nothing"


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
