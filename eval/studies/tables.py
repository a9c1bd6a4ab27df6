"""`python -m eval tables`: the tables of the documentation, the command of each and its date."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from incontext.errors import InputError

COMMAND = re.compile(r"python -m (eval|benchmarks|demos)\b|incontext [a-z]")
CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`]+)`", re.MULTILINE | re.DOTALL)
RULE = re.compile(r"^\|(?: ?:?-+:? ?\|)+\s*$")  # the line under a table's head


@dataclass(frozen=True)
class Table:
    """A table of a page whose cells hold figures.

    Attributes:
        line: of its head, from 1.
        command: the last one of its section before it; "": none.
    """

    page: Path
    line: int
    last_line: int
    section: str
    command: str


def find_tables(page: Path, text: str) -> Iterator[Table]:
    """List the tables of a page's Markdown in which a figure stands.

    Tables of words, such as those of options and folders, are left out.
    """
    lines = text.splitlines()
    section, section_start = "", 0
    in_code = False
    for number, line in enumerate(lines):
        in_code ^= line.startswith("```")
        if line.startswith("#") and not in_code:
            section, section_start = line.lstrip("# "), number
        if not RULE.match(line):
            continue
        last = number
        while last + 1 < len(lines) and lines[last + 1].startswith("|"):
            last += 1
        rows = [row.strip("| ").split(" | ")[1:] for row in lines[number + 1 : last + 1]]
        if any(re.match(r"\**[-+−]?\d", cell) for row in rows for cell in row):
            before = "\n".join(lines[section_start : number - 1])
            yield Table(page, number, last + 1, section, find_command(before))


def find_command(text: str) -> str:
    """Return the last command in code of a text, on one line; "": none."""
    commands = []
    for block, inline in CODE.findall(text):
        lines = block.replace("\\\n", " ").splitlines() or [inline]
        commands += [" ".join(line.split()) for line in lines if COMMAND.match(line)]
    return commands[-1] if commands else ""


def change_date(root: Path, table: Table) -> date:
    """Return when a line of a table was last committed; a line not committed counts as of today.

    Raises:
        InputError: no git history.
    """
    lines = f"-L{table.line},{table.last_line}"
    output = _git(root, "blame", "--line-porcelain", lines, "--", str(table.page))
    times = [int(line.split()[1]) for line in output.splitlines() if line.startswith("author-time")]
    return _day(max(times))


def weights_date(root: Path, checkpoint: str) -> date | None:
    """Return when the weights of a bundled checkpoint were last committed; None: never."""
    path = f"incontext/checkpoints/weights/{checkpoint}/model.safetensors"
    output = _git(root, "log", "-1", "--format=%at", "--", path).strip()
    return _day(int(output)) if output else None


def _day(seconds: int) -> date:
    return datetime.fromtimestamp(seconds, UTC).date()


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", *arguments], check=False, cwd=root, capture_output=True, text=True
    )
    if result.returncode:
        raise InputError(f"{root}: {result.stderr.strip()}; accepted: a clone with its history")
    return result.stdout


def run(root: Path, checkpoint: str, older: bool) -> None:
    """Print the tables of all pages that git knows under a folder.

    Args:
        checkpoint: bundled one whose date is compared.
        older: print only tables older than its weights.
    """
    weights = weights_date(root, checkpoint)
    print(f"{checkpoint}: weights of {weights or 'no commit'}\n")
    print("| table | date | command |\n|---|---|---|")
    for name in _git(root, "ls-files", "*.md").splitlines():
        for table in find_tables(Path(name), (root / name).read_text(encoding="utf-8")):
            last_change = change_date(root, table)
            if older and weights and last_change >= weights:
                continue
            where = f"{name}:{table.line} {table.section}"
            command = f"`{table.command}`" if table.command else "–"
            print(f"| {where} | {last_change} | {command} |")
