"""Label Studio: whose a region is, which ids labels get, where pictures may lie."""

import json
from pathlib import Path

import numpy as np
import pytest

from incontext import InputError, read_examples
from tests.formats.test_read_examples import MASK, SIZE, picture, region, tasks_file

pytestmark = pytest.mark.filterwarnings("ignore:no tasks")

LABELS = '<Label value="cat"/><Label value="dog"/>'


def polygon(target: str | None, points: list[list[int]], **more: object) -> dict:
    own = {} if target is None else {"to_name": target}
    return {"type": "polygonlabels", "original_width": SIZE[0], "original_height": SIZE[1],
            "value": {"points": points, "polygonlabels": ["cat"]}, **own, **more}  # fmt: skip


LEFT, RIGHT = [[0, 0], [20, 0], [20, 100]], [[80, 0], [100, 0], [100, 100]]


def pair(folder: Path, *regions: dict, config: str = "", data: dict | None = None) -> Path:
    """A task with two pictures, a.png and b.png."""
    for name in ("a.png", "b.png"):
        picture(folder, name)
    data = data or {"before": "a.png", "after": "b.png"}
    path = folder / "tasks.json"
    path.write_text(json.dumps([{"data": data, "annotations": [{"result": list(regions)}]}]))
    if config:
        (folder / "tasks.config.xml").write_text(f"<View>{config}</View>")
    return path


def extent(path: Path) -> dict[str, tuple[int, int]]:
    """First and last labelled column by picture."""
    columns = {e.source: np.flatnonzero((e.labels.ids > 0).any(0)) for e in read_examples(path)}
    return {name: (int(c[0]), int(c[-1])) for name, c in columns.items() if len(c)}


IMAGES = '<Image name="x" value="$before"/><Image name="y" value="$after"/>'
TOOLS = "".join(
    f'<PolygonLabels name="p{n}" toName="{n}">{LABELS}</PolygonLabels>' for n in ("x", "y")
)


def test_regions_stay_with_their_picture(tmp_path):
    path = pair(tmp_path, polygon("y", RIGHT), polygon("x", LEFT), config=IMAGES + TOOLS)
    wide = extent(path)
    assert wide["a.png"][1] < 8
    assert wide["b.png"][0] > 26


def test_a_picture_without_a_tool_is_no_example(tmp_path):
    tool = TOOLS[: TOOLS.index("<PolygonLabels", 1)]
    path = pair(tmp_path, polygon("x", LEFT), config=IMAGES + tool)
    assert extent(path).keys() == {"a.png"}
    assert len(list(read_examples(path))) == 1


def test_a_tool_named_like_the_data_needs_no_configuration(tmp_path):
    path = pair(tmp_path, polygon("after", RIGHT))
    assert extent(path).keys() == {"b.png"}


@pytest.mark.parametrize(
    ("regions", "config"),
    [
        ([polygon("y", LEFT), polygon("x", RIGHT)], ""),
        ([polygon("x", LEFT)], ""),
        ([polygon(None, LEFT)], ""),
        ([polygon(None, LEFT)], IMAGES + TOOLS),
        ([polygon("z", LEFT)], IMAGES + TOOLS),
        ([], ""),
    ],
)  # fmt: skip
def test_what_belongs_to_no_picture_is_refused(tmp_path, regions, config):
    with pytest.raises(InputError, match=r"task 1: regions of .*pictures are .*config\.xml"):
        list(read_examples(pair(tmp_path, *regions, config=config)))


def test_other_texts_of_a_task_are_no_pictures(tmp_path):
    data = {"caption": "a cat", "pic": "a.png", "id": "7"}
    assert extent(pair(tmp_path, polygon("img", LEFT), data=data)).keys() == {"a.png"}


def test_lists_of_pictures_are_refused(tmp_path):
    data = {"pic": "a.png"}
    with pytest.raises(InputError, match=r"a list of pictures \(item_index\)"):
        list(read_examples(pair(tmp_path, polygon("img", LEFT, item_index=1), data=data)))


def test_labels_that_two_tools_share_are_counted_once(tmp_path):
    picture(tmp_path)
    path = tasks_file(tmp_path, region())
    config = (
        f'<Image name="i" value="$image"/><BrushLabels name="b" toName="i">{LABELS}</BrushLabels>'
    )
    config += f'<PolygonLabels name="p" toName="i">{LABELS}</PolygonLabels>'
    (tmp_path / "export.config.xml").write_text(f"<View>{config}</View>", encoding="utf-16")
    [example] = read_examples(path)
    assert example.names == {1: "cat", 2: "dog"}
    assert np.array_equal(example.labels.ids, 1 * MASK)


def test_a_label_with_two_categories_is_refused(tmp_path):
    picture(tmp_path)
    path = tasks_file(tmp_path, region())
    labels = '<Label value="cat" category="1"/><Label value="cat" category="2"/>'
    (tmp_path / "export.config.xml").write_text(f"<View>{labels}</View>")
    with pytest.raises(InputError, match="'cat' has the ids 1 and 2"):
        list(read_examples(path))


@pytest.mark.filterwarnings("ignore:no export")
@pytest.mark.parametrize(
    "address",
    ["../a.png", "..\\..\\a.png", "x/../../a.png", "..\\0123abcd-a.png", "../../0123abcd-a.png",
     "%2e%2e/a.png", "..%5C..%5Ca.png"],
)  # fmt: skip
def test_pictures_stay_in_their_folder(tmp_path, address):
    picture(tmp_path)  # outside
    folder = picture(tmp_path / "photos", "a.png").parent
    path = tasks_file(tmp_path, region(), address=address)
    with pytest.raises(InputError, match=r"task 1: picture .* is no file in .*leads out of it"):
        list(read_examples(path, images=folder))


@pytest.mark.filterwarnings("ignore:no export")
@pytest.mark.parametrize("name", ["a#1.png", "a%20b.png", "100%.png", "what?.png", "a b.png"])
def test_names_that_look_like_addresses(tmp_path, name):
    picture(tmp_path, name)
    [example] = read_examples(tasks_file(tmp_path, region(), address=str(tmp_path / name)))
    assert example.source == name


@pytest.mark.filterwarnings("ignore:no export")
@pytest.mark.parametrize(
    ("more", "text"),
    [({"original_width": None}, "original_width None"), ({"original_width": 1e999}, "inf"),
     ({"type": ["x"]}, r"\['x'\]; accepted: brushlabels"), ({"image_rotation": "90"}, "rotation"),
     ({"value": {"rle": None, "brushlabels": ["cat"]}}, "rle None"),
     ({"value": {"rle": [1], "brushlabels": "cat"}}, r"labels \[\]")],
)  # fmt: skip
def test_fields_of_another_type_are_named(tmp_path, more, text):
    picture(tmp_path)
    with pytest.raises(InputError, match=rf"task 1 \(a\.png\): region 1: .*{text}"):
        list(read_examples(tasks_file(tmp_path, region(**more))))
