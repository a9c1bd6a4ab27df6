"""The tab of images without a browser: time left, two prompts, folders, the same as code."""

import shlex
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.web.helpers import labelled, scene

gr = pytest.importorskip("gradio", reason="needs gradio (demo extra)")

from incontext import InputError, Prompt  # noqa: E402
from incontext.web import limits  # noqa: E402
from incontext.web.jobs import Jobs  # noqa: E402
from incontext.web.models import Models  # noqa: E402
from incontext.web.page.appearance import head  # noqa: E402
from incontext.web.page.images import snippet  # noqa: E402
from incontext.web.page.images.comparison import comparison  # noqa: E402
from incontext.web.page.images.panels import ALL_FIELDS, RESULT_FIELDS, updates  # noqa: E402
from incontext.web.page.images.showcase import Showcase  # noqa: E402
from incontext.web.page.segmenting import SegmentRequest, downloads, segment  # noqa: E402
from incontext.web.page.session import DraftExample, ImageResult, Session  # noqa: E402
from incontext.web.page.shortcuts import SHORTCUTS  # noqa: E402
from incontext.web.progress import Progress, format_seconds  # noqa: E402


def test_time_left_is_that_of_the_last_steps():
    times = iter([0, 10, *(10 + 2 * n for n in range(1, 12))])
    progress = Progress(12, lambda: next(times))
    assert str(progress) == "0 of 12"
    assert progress.step() == "1 of 12 · about 2 min left"  # the first one is slow: 110 s
    for _ in range(8):
        text = progress.step()
    assert text == "9 of 12 · about 6 s left"  # and soon forgotten
    for _ in range(3):
        text = progress.step()
    assert text == "12 of 12"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (8.4, "8 s"), (89, "89 s"), (100, "2 min"), (3570, "1 h"), (4800, "1 h 20 min")],
)
def test_times_as_people_say_them(seconds, text):
    assert format_seconds(seconds) == text


def test_outputs_are_in_the_order_of_the_fields():
    values = updates(RESULT_FIELDS, status="x", python="y")
    assert len(values) == len(RESULT_FIELDS)
    assert values[RESULT_FIELDS.index("status")] == "x"
    with pytest.raises(AssertionError, match="nothing"):
        updates(ALL_FIELDS, nothing=1)


def test_each_key_is_there_once():
    keys = [shortcut.key for shortcut in SHORTCUTS]
    assert len(set(keys)) == len(keys)
    assert "</script" not in head().replace("</script>", "", 1)


def results(folder: Path, scores: dict[str, float]) -> list[ImageResult]:
    """Results of pictures, without files."""
    return [
        ImageResult(name, folder / name, folder / name, f"cell {score:.2f}", score, digest=name)
        for name, score in scores.items()
    ]


def test_two_prompts_are_compared_picture_by_picture(tmp_path):
    session = Session(tmp_path)
    with pytest.raises(InputError, match="No result yet"):
        session.keep()
    session.results = results(session.new_run("segment"), {"a": 0.5, "b": 0.9, "c": 0.7})
    session.prompt_caption = "1 example"
    session.keep()
    shown = comparison(session, "overlay")
    assert "A** is kept: 1 example" in shown["verdict"]["value"]
    assert not shown["pairs"]["visible"]
    # B: other pictures among them, in another order.
    session.results = results(session.new_run("segment"), {"c": 0.7, "d": 0.1, "a": 0.8})
    session.prompt_caption = "2 examples"
    shown = comparison(session, "overlay")
    captions = [caption for _, caption in shown["pairs"]["value"]]
    assert captions == [
        "A: cell 0.70 · c", "B: cell 0.70 · c", "A: cell 0.50 · a", "B: cell 0.80 · a",
    ]  # fmt: skip
    assert shown["verdict"]["value"] == (
        "**A** (1 example): 0.60 · **B** (2 examples): 0.75. Of 2 pictures B is likely to be "
        "better in 1, A in 0."
    )
    session.results = results(session.new_run("segment"), {"e": 0.2})
    assert "None of these pictures" in comparison(session, "overlay")["verdict"]["value"]


def test_results_last_until_the_next_of_their_job(tmp_path):
    session = Session(tmp_path)
    first = session.new_run("segment")
    session.results = results(first, {"a": 0.5})
    session.new_clip()
    session.new_run("tune")
    assert first.is_dir(), "tuning took the results of the images away"
    session.keep()
    second = session.new_run("segment")
    session.results = results(second, {"a": 0.6})
    assert first.is_dir(), "what is kept is gone"
    session.keep()
    assert not first.is_dir()
    session.forget()
    assert second.is_dir()
    session.clear()
    assert not second.is_dir()
    assert not session.results


def arguments(command: str) -> list[str]:
    """Words of a command as a shell reads it: lines that end in a backslash go on."""
    return shlex.split(command.replace(" \\\n", " "))


ODD = ['a "b".png', "-x.png", "it's\n.png", "ü [1].png"]


@pytest.mark.parametrize("prompt", [None, "/somewhere/my prompt.safetensors"])
def test_code_of_odd_names_and_all_options(prompt):
    options = SegmentRequest(
        None, "instance", 64, {1: 'so "called"', 2: "$HOME"}, prompt, min_presence=0.75
    )
    pairs = [] if prompt else [("example1.png", "example1_mask.png")]
    code = snippet.python_code(pairs, ODD, options, "my checkpoint", has_unknown=not prompt)
    compile(code, "snippet", "exec")
    names: dict[str, object] = {}
    exec(next(code[k:] for k in [code.index("files = ")]).split("for file")[0], names)
    assert names["files"] == ODD
    words = arguments(snippet.shell_command(pairs, ODD, options, "my checkpoint", not prompt))
    assert words[2:6] == [ODD[0], "./-x.png", *ODD[2:]]
    assert words[-8:] == [
        *(["--prompt", "my prompt.safetensors"] if prompt else ["instance", "--crop"]),
        "--tile", "64", "--presence", "0.75", "--checkpoint", "my checkpoint",
    ]  # fmt: skip
    assert "somewhere" not in code
    assert ("names=" in code) is not bool(prompt)
    assert "tile=64, min_presence=0.75" in code


def test_a_block_of_code_ends_where_the_code_does():
    assert snippet.code_block("x\n", "python") == "```python\nx\n```"
    assert snippet.code_block("a ```` b\n", "bash").splitlines()[0] == "`````bash"


@pytest.mark.parametrize(("tile", "partly"), [(None, False), (96, True)])
def test_code_does_what_the_page_did(
    tmp_path, monkeypatch, incontext, tiny_checkpoint, tile, partly
):
    (one, other), _ = labelled(tmp_path, 2)
    options = SegmentRequest(
        str(tiny_checkpoint), "instance" if tile else "semantic", tile, {1: "egg", 2: "sky"}
    )
    models = Models([str(tiny_checkpoint)])
    with limits.temporary_root():
        session = Session.create()
        ids = scene(0)[1].astype(np.uint8)
        ids[:20] = 2
        drafts = [
            DraftExample.shrink(Image.fromarray(scene(0)[0]), ids, partly),
            DraftExample.shrink(Image.fromarray(scene(3)[0]), scene(3)[1].astype(np.uint8)),
        ]
        examples = [draft.example() for draft in drafts]
        for _ in segment(
            models, session, examples, [str(one), str(other)], options, threading.Event()
        ):
            pass
        code = snippet.write(session, drafts, [str(one), str(other)], options, "")
        given = {Path(name).name: name for name in downloads(session)}
        assert set(given) == {"masks.zip", "coco.json", "prompt.safetensors", "examples.zip"}
        zipfile.ZipFile(given["examples.zip"]).extractall(tmp_path)
        masks = {result.name: result.ids() for result in session.results}
        assert Prompt.load(given["prompt.safetensors"]).ids == (1, 2)
    monkeypatch.chdir(tmp_path)
    exec(compile(code["python"], "snippet", "exec"), {})
    assert incontext(*arguments(code["shell"])[1:]).code == 0
    for folder in ("masks", "results"):
        for name, mask in masks.items():
            again = np.asarray(Image.open(tmp_path / folder / f"{name}.png"))
            assert np.mean(again == mask) > 0.99, (folder, name)


def test_presence_out_of_range_is_refused_before_any_work(tmp_path, tiny_checkpoint):
    (one,), _ = labelled(tmp_path, 1)
    session = Session(tmp_path)
    options = SegmentRequest(min_presence=1.5)
    with pytest.raises(InputError, match="min_presence"):
        next(segment(Models([str(tiny_checkpoint)]), session, [], [str(one)], options, None))
    assert not session.folders


def test_a_page_whose_checkpoint_fails_opens_without_results():
    def fail(name):
        raise InputError(f"{name}: no such checkpoint")

    with limits.temporary_root():
        showcase = Showcase(Models(["missing"], fail), Jobs())
        assert showcase.results() == []
        assert len(showcase.targets()) == 3
        picture, ids = showcase.draft()
        assert picture.size == ids.shape[::-1]
