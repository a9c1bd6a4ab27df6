"""Which tables of figures the pages have, and how old they are."""

import os
import subprocess
from datetime import date
from pathlib import Path

import pytest

from eval.studies.tables import change_date, find_command, find_tables, run, weights_date
from incontext.errors import InputError

PAGE = """# Figures

Text with `python -m eval other`.

## Speed

Measured by `python -m benchmarks.query
--rounds 5` on two cores, `incontext-votes`.

| examples | seconds |
|---|---|
| 1 | 0.11 |

## Options

| name | meaning |
|---|---|
| `--rounds` | rounds |

## Accuracy

```
incontext train sets \\
  --out runs

python -m eval bench --episodes 60
```

| set | mIoU |
|---|---|
| cracks | **36.2** |
"""


def git(folder: Path, *arguments: str, date: str = "2024-05-01T12:00:00") -> None:
    """Run git as an author of some date."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    environment = os.environ | {
        "GIT_AUTHOR_DATE": f"{date}+0000",
        "GIT_COMMITTER_DATE": f"{date}+0000",
    }
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, env=environment)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Make a repository with a page of May, whose last table is of July, and weights of June."""
    git(tmp_path, "init", "-q")
    (tmp_path / "page.md").write_text(PAGE)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "page")
    weights = tmp_path / "incontext/checkpoints/weights/incontext-votes/model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "weights", date="2024-06-01T12:00:00")
    (tmp_path / "page.md").write_text(PAGE.replace("36.2", "36.5"))
    git(tmp_path, "commit", "-qam", "measured again", date="2024-07-01T12:00:00")
    return tmp_path


class TestFindTables:
    def test_finds_figures_with_section_and_command(self):
        tables = list(find_tables(Path("page.md"), PAGE))
        assert [(t.section, t.command) for t in tables] == [
            ("Speed", "python -m benchmarks.query --rounds 5"),
            ("Accuracy", "python -m eval bench --episodes 60"),
        ]
        assert PAGE.splitlines()[tables[0].line - 1] == "| examples | seconds |"
        assert PAGE.splitlines()[tables[0].last_line - 1] == "| 1 | 0.11 |"

    def test_a_section_without_a_command(self):
        assert find_command("Text with `a name`.") == ""


def test_dates(clone):
    speed, accuracy = find_tables(Path("page.md"), (clone / "page.md").read_text())
    assert change_date(clone, speed) == date(2024, 5, 1)
    assert change_date(clone, accuracy) == date(2024, 7, 1)
    assert weights_date(clone, "incontext-votes") == date(2024, 6, 1)
    assert weights_date(clone, "incontext-small") is None


def test_prints_older_tables_only(clone, capsys):
    run(clone, "incontext-votes", older=True)
    output = capsys.readouterr().out
    assert "weights of 2024-06-01" in output
    assert "page.md:10 Speed | 2024-05-01 | `python -m benchmarks.query --rounds 5`" in output
    assert "Accuracy" not in output


def test_no_history(tmp_path):
    with pytest.raises(InputError, match="accepted: a clone with its history"):
        run(tmp_path, "incontext-votes", older=False)
