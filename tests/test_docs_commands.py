"""Every command and every Python snippet of README and the docs runs, as it is printed.

A page's blocks run in their order in a folder that holds the files they name. What a test of
another file already runs, or what takes a network, a cluster or hours, is listed in `ELSEWHERE`
with that test; nothing else is left out.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documented_files import (
    write_annotations,
    write_clip,
    write_maps,
    write_pictures,
    write_scans,
    write_set,
)

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
QUESTIONS = "docs/faq.md"  # whose commands are those of other pages
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(incontext|python|pip|make|torchrun|curl|export|ID=|apt|git) ?")

ENGINES, SERVE = "tests/batch/test_engines.py", "tests/web/test_serve.py"
TRAINER, PAGE = "tests/training/test_trainer.py", "tests/web/test_page_api.py"
DOCUMENTED_CLIENT = f"{SERVE}::test_the_page_of_documentation_runs"
# Beginning of a command → the test that executes it; `.ci/run` begins with a bare machine.
ELSEWHERE = {
    "make demo": "tests/test_readme.py::test_demo_segments_photographs",
    "make test": ".ci/run::make test",
    "pip install -c constraints.txt": ".ci/run::make test",
    "incontext demo": f"{PAGE}::test_segment",
    "incontext serve": DOCUMENTED_CLIENT,
    "export INCONTEXT_API_KEY": DOCUMENTED_CLIENT,
    "curl": DOCUMENTED_CLIENT,
    "ID=": DOCUMENTED_CLIENT,
    "incontext export onnx": "tests/checkpoints/test_onnx.py::made",
    "incontext segment a.jpg --example photo.jpg mask.png --backend onnx":
        "tests/checkpoints/test_onnx.py::test_the_command_needs_no_torch",
    "incontext segment --prompt spots.safetensors --out results --engine processes":
        f"{ENGINES}::test_processes",
    "incontext segment --prompt spots.safetensors --out results --engine ray":
        f"{ENGINES}::test_ray",
    "incontext train": f"{TRAINER}::test_command_trains_and_logs",
    "incontext train ../shared/data/train/*.tar --recipe recipes/votes":
        f"{TRAINER}::test_a_voting_model_trains_and_resumes",
    "incontext convert runs/b": "tests/cli/test_cli_checkpoints.py::test_convert_dtype",
}  # fmt: skip
# Pages whose Python needs more than a folder of files.
SNIPPETS_ELSEWHERE = {
    "docs/onnx.md": "tests/checkpoints/test_onnx.py::test_the_program_of_the_page_runs",
    "docs/formats.md": "tests/formats/test_read_examples.py::test_snippet_of_the_page_runs",
    "docs/volumes.md": "tests/test_napari.py::test_recipe_segments_layers",
    "docs/serve.md": DOCUMENTED_CLIENT,
    "docs/demo.md": "tests/test_docs_commands.py::test_client_of_the_page_runs",
}
SEGMENT = "incontext segment --example photo.jpg mask.png --out results pictures/"
PROMPT = "incontext prompt --example photo.jpg mask.png --out spots.safetensors"
# What a page takes for granted.
BEFORE = {
    "docs/formats.md": [SEGMENT], "docs/scale.md": [PROMPT], "docs/prompt-file.md": [PROMPT],
}  # fmt: skip
# Options that make a long command short; what is printed runs otherwise.
SHORT = {
    "doctor": ["--threads", "1"],
    "tune": ["--steps", "1", "--threads", "1"],
    "finetune": ["--steps", "1", "--episodes", "2", "--size", "32", "--threads", "1"],
    "calibrate": ["--episodes", "12", "--threads", "1"],
}
SET_SIZES = {"doctor": 3, "tune": 2, "finetune": 24, "calibrate": 6}
# Nothing can be gained on images that are alike, and examples may hurt each other.
CODES = {"tune": (0, 3), "doctor": (0, 4)}
OUTPUTS = {
    "doctor": "3 examples", "finetune": "learned from 19 pictures, judged by 5 held out",
    "video": "id 1 (1): in 9 of 9 frames",
}  # fmt: skip


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of the blocks of a page."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def commands(text: str) -> list[str]:
    """The commands of a block without comments."""
    lines = [re.sub(r"\s+# .*", "", line) for line in text.replace("\\\n", " ").splitlines()]
    return [line.strip() for line in lines if COMMAND.match(line)]


def other_test(line: str) -> str | None:
    """The test that runs a command elsewhere, by the longest beginning."""
    beginnings = [key for key in ELSEWHERE if line.startswith(key)]
    return ELSEWHERE[max(beginnings, key=len)] if beginnings else None


@pytest.mark.parametrize("place", sorted({*ELSEWHERE.values(), *SNIPPETS_ELSEWHERE.values()}))
def test_named_tests_exist(place):
    path, _, name = place.partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert name in text if path == ".ci/run" else f"def {name}(" in text


def test_tables_name_only_what_is_printed():
    lines = [line for page in PAGES for lang, text in blocks(page) if lang in ("", "sh")
             for line in commands(text)]  # fmt: skip
    for beginning in ELSEWHERE:
        assert any(line.startswith(beginning) for line in lines), f"nothing begins with {beginning}"
    for page in SNIPPETS_ELSEWHERE:
        assert any(language == "python" for language, _ in blocks(page)), page


def test_answers_are_commands_of_other_pages():
    lines = {page: {line for _, text in blocks(page) for line in commands(text)} for page in PAGES}
    answers = lines.pop(QUESTIONS)
    assert len(answers) > 10
    assert answers <= set().union(*lines.values())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that every page names."""
    write_pictures(tmp_path)
    write_annotations(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_command(line: str, folder: Path, incontext) -> None:
    """Run one command in the folder, where the files lie."""
    program, name, *arguments = shlex.split(line)
    assert program == "incontext", f"add {line!r} to ELSEWHERE with the test that runs it"
    if name in SET_SIZES:
        shutil.rmtree(folder / "my-set", ignore_errors=True)
        write_set(folder, SET_SIZES[name])
    answer = incontext(name, *arguments, *SHORT.get(name, []))
    assert answer.code in CODES.get(name, (0,)), f"{line}\n{answer.err}"
    assert OUTPUTS.get(name, "") in answer.out, line


def run_python(code: str, folder: Path) -> str:
    """Run a snippet in a process of its own; return what it prints."""
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p) and p != QUESTIONS])
def test_page_runs(page, folder, incontext, monkeypatch):
    text = (ROOT / page).read_text(encoding="utf-8")
    for word, module, write in (
        ("clip.mp4", "av", write_clip),
        ("tile.tif", "rasterio", write_maps),
        ("scan.nii.gz", "nibabel", write_scans),
    ):
        if word in text:
            pytest.importorskip(module)
            write(folder)
    for line in BEFORE.get(page, []):
        run_command(line, folder, incontext)
    for language, code in blocks(page):
        if language == "python" and page not in SNIPPETS_ELSEWHERE:
            assert run_python(code, folder)
        elif language in ("", "sh"):
            for line in commands(code):
                if not other_test(line):
                    run_command(line, folder, incontext)
    if page == "README.md":  # what it promises is there
        for name in ("c.png", "c.confidence.png", "c.overlay.jpg", "results.json"):
            assert (folder / "results" / name).is_file()
        assert (folder / "coco.json").is_file()


@pytest.mark.server
def test_client_of_the_page_runs(folder):
    pytest.importorskip("gradio_client", reason="needs gradio (demo extra)")
    pytest.importorskip("av", reason="needs PyAV (video extra)")
    from tests.web.helpers import served

    write_clip(folder, 3)
    [code] = [text for language, text in blocks("docs/demo.md") if language == "python"]
    with served() as address:
        code = code.replace("http://127.0.0.1:7860", address)
        assert "'frames': 3" in run_python(f"{code}\nprint(report)", folder)


INLINE = re.compile(r"`(?:\.venv/bin/)?incontext ([a-z]+)([^`]*)`")


@pytest.mark.parametrize("page", PAGES)
def test_options_in_prose_exist(page):
    """Commands in the middle of a sentence name real commands and options."""
    import typer.main

    from incontext.cli.app import app

    known = typer.main.get_command(app).commands
    for name, rest in INLINE.findall((ROOT / page).read_text(encoding="utf-8")):
        assert name in known, f"{page}: incontext {name}"
        options = {option for p in known[name].params for option in (*p.opts, *p.secondary_opts)}
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in options, f"{page}: incontext {name} {option}"
