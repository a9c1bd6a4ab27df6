"""Help texts: nothing is cut off at 80 columns, every text stands by itself, torch stays out."""

import os
import subprocess
import sys

import pytest
from typer.main import get_command

from incontext.cli.app import app

COMMANDS = get_command(app).commands
OPTIONS = [
    pytest.param(option, id=f"{name}-{option.name}")
    for name, command in COMMANDS.items()
    for option in command.params
]


def help_text(*args: str) -> str:
    """What a process of its own prints at 80 columns."""
    process = subprocess.run(
        [sys.executable, "-m", "incontext", *args, "--help"], capture_output=True, text=True,
        check=False, env={**os.environ, "COLUMNS": "80", "TERMINAL_WIDTH": "80"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_no_summary_is_cut_off():
    text = help_text()
    assert max(map(len, text.splitlines())) <= 80
    rows = text.partition("Commands:\n")[2].splitlines()
    summaries = dict(row.split(maxsplit=1) for row in rows)
    assert list(summaries) == list(COMMANDS)
    for name, command in COMMANDS.items():
        sentence = command.help.splitlines()[0]
        assert summaries[name] == sentence
        assert len(sentence) <= 45


@pytest.mark.parametrize("option", OPTIONS)
def test_option_text_is_a_sentence(option):
    assert option.help.endswith((".", "]"))
    assert option.help.split()[0] not in ("Of", "That", "Which")
    assert len(option.help.split()) > 1


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(incontext, name):
    answer = incontext(name, "--help")
    assert answer.code == 0
    assert f"Usage: incontext {name}" in answer.out
    summary = COMMANDS[name].help.splitlines()[0]
    assert summary in answer.out


@pytest.mark.parametrize("command", ["segment", "serve"])
def test_help_needs_no_torch(command):
    """The command line imports torch in the commands that compute only."""
    code = (
        f"import sys; sys.argv = ['incontext', '{command}', '--help']\n"
        "from incontext.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "--checkpoint" in process.stdout


def test_help_of_export_lists_every_format():
    from incontext.cli.export import FORMAT_NAMES
    from incontext.formats import FORMATS

    assert ", ".join(FORMATS) == FORMAT_NAMES
