"""Names of pictures and classes that a format, or a terminal, cannot hold as they are."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from incontext import InputError, export, read_examples
from tests.formats.test_fuzz_round_trip import segmented_on_earth
from tests.formats.test_read_examples import MASK, picture, segmented

LEGACY = os.fsdecode(b"gr\xfcn")  # of an old zip file: no UTF-8
FORMATS = ("coco", "yolo", "voc", "label-studio", "cvat")
FILES = {"coco": "set.json", "label-studio": "set.json", "cvat": "set.xml"}


@pytest.mark.parametrize("to", FORMATS)
def test_file_names_that_are_no_text(tmp_path, to):
    """They come back, or the picture is named before anything is written of it."""
    out = segmented(tmp_path, {LEGACY: MASK * 1}, {1: "cat"})
    path = tmp_path / FILES.get(to, "set")
    if to in ("voc", "cvat"):
        with pytest.raises(InputError, match=r"picture 'gr\\udcfcn.* rename it"):
            export(out, to, path)
        return
    export(out, to, path)
    images = tmp_path / "pictures" if path.suffix else None
    [example] = read_examples(path, images=images)
    assert example.source == f"{LEGACY}.png"
    assert np.array_equal(example.labels.ids, MASK)


@pytest.mark.parametrize("to", [*FORMATS, "geotiff"])
@pytest.mark.parametrize(
    "name", ["cat\U0001f600", 'a "b" & <c>', "x: y", "\x07bell", "\udcfc", "two\nlines", "# no"]
)
def test_names_of_classes_come_back_or_are_refused(tmp_path, to, name):
    if to == "geotiff":
        out = segmented_on_earth(tmp_path, MASK * np.int32(1), {1: name})
    else:
        out = segmented(tmp_path, {"a": MASK * 1}, {1: name})
    path = tmp_path / FILES.get(to, "set")
    try:
        export(out, to, path)
    except InputError as error:
        problem = str(error)
    else:
        images = {"geotiff": tmp_path / "images", "yolo": None, "voc": None}
        [example] = read_examples(path, images=images.get(to, tmp_path / "pictures"))
        assert example.names == {1: name}
        return
    assert to in ("voc", "label-studio", "cvat", "geotiff")
    assert ascii(name) in problem
    assert name in ("\x07bell", "\udcfc", "two\nlines", "# no")


def test_commands_print_any_file_name(tmp_path, tiny_checkpoint):
    """Under a locale whose output is strict."""
    example = picture(tmp_path)
    mask = tmp_path / "mask.png"
    Image.fromarray(MASK).save(mask)
    frames = [Image.new("RGB", (9, 9), color) for color in ("red", "blue")]
    folder = tmp_path / "old"
    folder.mkdir()
    frames[0].save(folder / "b.gif", save_all=True, append_images=frames[1:])  # causes a note
    (folder / "b.gif").rename(folder / f"{LEGACY}.gif")
    options = ["--checkpoint", tiny_checkpoint, "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "incontext", "segment", "--example", example, mask, *options]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict", "PYTHONPATH": root}
    answer = subprocess.run(
        [*map(str, command), str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert r"gr\udcfcn" in answer.stdout
