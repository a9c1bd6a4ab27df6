"""Fixtures that several test files share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from incontext.checkpoints.checkpoint import save
from incontext.cli.app import main
from incontext.model import SIZES, SegGPT

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Of every process that a test starts: two tests run at a time, and threads without a core of
# their own wait for each other in busy loops.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)  # of this process, whose fixtures of modules come before the one below


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """A command that ran in this process may have left others; sums differ with their number."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of oracles and data beside a checkout; tests that need it skip without."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared (parity tensors, data), which is not here")
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random model in the official shape."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    save(SegGPT(SIZES["tiny"]), folder)
    return folder


class Answer(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def incontext(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """The command line, run in this process; it never shows a traceback."""

    def run(*args: object) -> Answer:
        monkeypatch.setattr("sys.argv", ["incontext", *map(str, args)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        answer = Answer(code, *capfd.readouterr())
        assert "Traceback" not in answer.out + answer.err
        return answer

    return run
