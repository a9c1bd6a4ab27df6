"""Work of an evaluation: it goes on after a kill, is shared by processes, refuses other work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eval.core.processes import Processes
from eval.core.setting import Setting
from eval.core.shared_work import Task, run_tasks
from eval.datasets import FEW_SHOT
from eval.runs.fewshot import run
from incontext.errors import InputError
from tests.eval.helpers import (
    rows,
    write_folder,
    write_image,
)


def test_goes_on_where_it_was_killed(tmp_path, tiny_checkpoint, capsys):
    data, out = write_folder(tmp_path / "data"), tmp_path / "out"
    setting = Setting(str(tiny_checkpoint))
    run(FEW_SHOT["folder"], data, setting, [0], [1], 6, out)
    report = (out / "folder.json").read_text()
    printed = capsys.readouterr().out
    assert "| 1 example, feature ensemble |" in printed
    assert "unknown (--trained-on)" in printed
    [journal] = (out / "folder.journal").iterdir()
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:4]) + '\n{"key": "fold 0, 1", "epi')  # killed while writing
    run(FEW_SHOT["folder"], data, setting, [0], [1], 6, out)
    assert (out / "folder.json").read_text() == report
    assert json.loads(report)["rows"][0]["fold 0"]["episodes"] == 6
    with pytest.raises(InputError, match="another evaluation"):
        run(FEW_SHOT["folder"], data, setting, [0], [1], 5, out)
    with pytest.raises(InputError, match="folds 0 … 0"):
        run(FEW_SHOT["folder"], data, setting, [1], [1], 5)


def test_other_data_is_another_evaluation(tmp_path, tiny_checkpoint):
    one, two = write_folder(tmp_path / "one"), write_folder(tmp_path / "two")
    setting, out = Setting(str(tiny_checkpoint)), tmp_path / "out"
    run(FEW_SHOT["folder"], one, setting, [0], [1], 2, out)
    with pytest.raises(InputError, match="another evaluation"):
        run(FEW_SHOT["folder"], two, setting, [0], [1], 2, out)
    write_image(one / "images/2.png")
    write_image(one / "masks/2.png", rows(1, 5))
    with pytest.raises(InputError, match="another evaluation"):  # other episodes
        run(FEW_SHOT["folder"], one, setting, [0], [1], 2, out)


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(InputError, match="nothing to evaluate"):
        run_tasks([Task("x", [], lambda: int)], "it", {}, None, Processes())
    with pytest.raises(InputError, match="--out"):
        run_tasks([Task("x", ["a"], lambda: int)], "it", {}, None, Processes(0, 2))


def test_what_another_process_left_is_told(tmp_path):
    """One of two did its share; then one alone does the rest."""
    tasks = [Task("x", [str(n) for n in range(5)], lambda: lambda n: n * n)]
    with pytest.raises(InputError, match="not all was done"):
        run_tasks(tasks, "it", {}, tmp_path, Processes(1, 2))
    assert run_tasks(tasks, "it", {}, tmp_path, Processes()) == {"x": [0, 1, 4, 9, 16]}
    assert [len(p.read_text().splitlines()) for p in sorted((tmp_path / "it.journal").iterdir())] \
        == [1 + 3, 1 + 2]  # fmt: skip


@pytest.mark.slow
def test_processes_share_the_episodes(tmp_path, tiny_checkpoint):
    data = write_folder(tmp_path / "data")
    run(FEW_SHOT["folder"], data, Setting(str(tiny_checkpoint)), [0], [1], 6, tmp_path / "one")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "eval",
               "folder", "--data", data, "--checkpoint", tiny_checkpoint, "--examples", "1",
               "--episodes", "6", "--threads", "1", "--out", tmp_path / "two"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True,
        check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    one, both = ((tmp_path / n / "folder.json").read_text() for n in ("one", "two"))
    assert both == one
    assert len(list((tmp_path / "two/folder.journal").iterdir())) == 2
