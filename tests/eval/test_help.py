"""--help of evaluations and benchmarks: every text stands by itself, and 80 columns hold it."""

import importlib
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from eval.__main__ import app

COMMANDS = typer.main.get_command(app).commands
FOLDER = Path(__file__).parents[2] / "benchmarks"
BENCHMARKS = sorted(p.stem for p in FOLDER.glob("*.py") if "option_parser(__doc__" in p.read_text())
SENTENCE = re.compile(r"(?!Of |That )[A-Z].*\.", re.DOTALL)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_options_of_evaluations_are_sentences(name):
    for option in COMMANDS[name].params:
        assert SENTENCE.fullmatch(option.help or ""), option.opts


def test_summaries_of_evaluations_fit():
    text = CliRunner().invoke(app, ["--help"], prog_name="python -m eval").output
    for name, command in COMMANDS.items():
        line = rf"│ {name} +{re.escape(command.short_help or command.help.split(chr(10))[0])} +│\n"
        assert re.search(line, text), f"{name}: wrapped or cut"


def help_of(module: str, monkeypatch, capsys) -> str:
    """What a benchmark prints before it measures anything."""
    monkeypatch.setattr("sys.argv", [module, "--help"])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        importlib.import_module(module).main()
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", BENCHMARKS)
def test_options_of_benchmarks_are_sentences(name, monkeypatch, capsys):
    if name == "demo":
        pytest.importorskip("gradio_client", reason="needs the demo extra")
    text = help_of(f"benchmarks.{name}", monkeypatch, capsys).partition("options:")[2]
    options = re.split(r"\n  (?=-)", text)[1:]
    assert options[0].startswith("-h")
    for option in options[1:]:
        _, _, words = " ".join(option.splitlines()).partition("  ")
        assert SENTENCE.fullmatch(words.strip()), option


def test_help_of_all_benchmarks_runs_none(monkeypatch, capsys):
    text = help_of("benchmarks.__main__", monkeypatch, capsys)
    assert "--quick" in text
    assert "## python" not in text
