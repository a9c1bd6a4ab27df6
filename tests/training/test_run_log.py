"""The log of a run: what its files say (that a run writes them: test_train.py)."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from incontext import InputError
from incontext.data.pictures import IGNORE_INDEX
from incontext.training.run_log import OBJECT, UNKNOWN, RunLog, read_rows, sheet
from incontext.training.validation import ValidationSample


def sample(value: int, size: int = 8) -> ValidationSample:
    """Three pictures of gray `value`, + 1, + 2; the middle row is the class, the last ignored."""
    pictures = torch.arange(value, value + 3).view(3, 1, 1, 1).expand(-1, 3, size, size) / 255
    labels = torch.zeros(3, size, size, dtype=torch.uint8)
    labels[:, 4], labels[:, -1] = 1, IGNORE_INDEX
    return ValidationSample(pictures, labels, torch.full((3, size, size), 0.5))


def test_lines_are_added(tmp_path):
    """A resumed run goes on in the same files; small rates keep their digits."""
    RunLog(tmp_path).add({"step": 50, "rate": 1.23456789e-6, "loss": 2.0})
    RunLog(tmp_path).add({"step": 100, "rate": 2e-4, "loss": 1 / 3})
    rows = read_rows(tmp_path / "log.csv")
    assert [row["step"] for row in rows] == ["50", "100"]
    assert float(rows[0]["rate"]) == pytest.approx(1.23456789e-6, rel=1e-5)
    assert float(rows[1]["loss"]) == pytest.approx(1 / 3, rel=1e-5)
    assert (tmp_path / "log.csv").read_text().count("rate") == 1
    assert read_rows(tmp_path / "none.csv") == []


def test_validation_rows(tmp_path):
    log = RunLog(tmp_path)
    log.add_validation(7, 4, {"one": 30.0, "two": 60.5})
    log.add_validation(8, 4, {})
    expected = {"one": 30.0, "two": 60.5, "mean": 45.25}
    rows = read_rows(tmp_path / "validation.csv")
    assert {row["set"]: float(row["mIoU"]) for row in rows} == expected
    assert {(row["step"], row["examples"]) for row in rows} == {("7", "4")}


def test_pictures(tmp_path):
    log = RunLog(tmp_path)
    log.draw()
    empty = (tmp_path / "curves.png").read_bytes()
    assert not (tmp_path / "paintings.png").exists()
    for step in (1, 2):
        log.add({"step": step, "loss": 1.0 / step})
        log.add_validation(step, 1, {"one": 10.0 * step})
    log.draw([sample(100), sample(200)])
    assert (tmp_path / "curves.png").read_bytes() != empty
    assert Image.open(tmp_path / "paintings.png").size == (40, 16)


def test_sheet():
    """First example, its label, query, truth, painting."""
    pixels = np.asarray(sheet([sample(100), sample(200)])).astype(int)
    assert pixels.shape == (16, 40, 3)
    for row, value in ((0, 100), (8, 200)):
        cells = pixels[row : row + 8].reshape(8, 5, 8, 3).swapaxes(0, 1)
        for cell, gray in ((0, value), (2, value + 2), (4, 127)):
            assert np.abs(cells[cell] - gray).max() <= 1
        for mask in cells[[1, 3]]:
            assert (mask[4] == OBJECT).all()
            assert (mask[-1] == UNKNOWN).all()
            assert not mask[[0, 1, 2, 3, 5, 6]].any()


def test_silent(tmp_path):
    log = RunLog(tmp_path, active=False)
    log.add({"step": 1, "loss": 2.0})
    log.add_validation(1, 1, {"one": 3.0})
    log.draw([sample(0)])
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'incontext-seg\[train\]'"):
        RunLog(tmp_path).draw()
