"""Parts of the page: painting, picking, pairs of files, sessions, jobs, limits."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tests.mask_writers import png
from tests.web.helpers import clip, iou, scene

gr = pytest.importorskip("gradio", reason="needs gradio (demo extra)")

from incontext import Example, InputError, Predictor  # noqa: E402
from incontext.model import SIZES, SegGPT  # noqa: E402
from incontext.web import jobs as jobs_module  # noqa: E402
from incontext.web import limits, reporting  # noqa: E402
from incontext.web.page import sample_data  # noqa: E402
from incontext.web.page.images.picking import Sam, grow_box, grow_click  # noqa: E402
from incontext.web.page.labelled_images import (  # noqa: E402
    pair_up,
    read_example,
    read_examples,
    run_in_background,
    shrink,
)
from incontext.web.page.painting import (  # noqa: E402
    BRUSHES,
    label_picture,
    paintable,
    parse_brush_names,
    parse_names,
    read_editor,
    write_editor,
)
from incontext.web.page.session import DraftExample, Session  # noqa: E402
from incontext.web.page.tracking import Clip  # noqa: E402


def test_what_is_painted_is_read_back():
    ids = np.random.default_rng(0).integers(0, 9, (31, 57)).astype(np.uint8)
    picture = Image.new("RGB", (57, 31), "gray")
    again, read = read_editor(write_editor(picture, ids))
    assert again.size == picture.size
    assert np.array_equal(read, ids)


def test_layers_lie_over_each_other_and_are_fitted():
    below = Image.new("RGBA", (40, 20), BRUSHES[0])
    above = Image.new("RGBA", (20, 10))  # of another size, and half as opaque in one part
    above.paste(BRUSHES[2] + "ff", (0, 0, 10, 10))
    above.paste(BRUSHES[2] + "40", (10, 0, 20, 10))
    value = {"background": Image.new("RGBA", (40, 20)), "layers": [below, above]}
    picture, ids = read_editor(value)
    assert picture.getpixel((0, 0)) == (255, 255, 255)  # transparent is white
    assert (ids[:, :20] == 3).all()
    assert (ids[:, 20:] == 1).all()
    assert read_editor(None) is None
    assert read_editor({"background": None, "layers": []}) is None


def test_an_editor_without_a_picture_is_empty():
    blank = Image.new("RGBA", (1, 1))
    assert read_editor({"background": blank, "layers": [blank]}) is None


def test_labels_keep_their_colors():
    ids = np.zeros((8, 8), np.uint8)
    ids[2:4] = 3
    example = Example(Image.new("RGB", (8, 8)), label_picture(ids))
    assert example.labels.present == [3] or tuple(example.labels.present) == (3,)
    assert "#{:02x}{:02x}{:02x}".format(*example.labels.colors[3]) == BRUSHES[2]


@pytest.mark.parametrize("value", [1, 3, 255])
def test_masks_keep_their_ids(tmp_path, value):
    ids = np.zeros((200, 480), np.uint8)
    ids[10:30, 20:50] = value
    Image.fromarray(ids).save(tmp_path / "mask.png")
    found = read_example(Image.fromarray(scene(0)[0]), tmp_path / "mask.png").labels.ids
    assert np.array_equal(found, np.where(ids == 255, 1, ids))
    assert np.array_equal(paintable(found), found)


def test_255_beside_ids_is_unknown(tmp_path):
    ids = np.zeros((200, 480), np.uint8)
    ids[10:30], ids[30:33] = 2, 255
    Image.fromarray(ids).save(tmp_path / "mask.png")
    found = read_example(Image.fromarray(scene(0)[0]), tmp_path / "mask.png").labels
    assert tuple(found.present) == (2,)
    assert (found.ids[30:33] == -1).all()
    assert set(np.unique(paintable(found.ids))) == {0, 2}
    with pytest.raises(InputError, match="id 40; the brushes are ids 1 … 8"):
        paintable(np.full((3, 3), 40))


def test_masks_are_read_as_stored(tmp_path):
    """Samples of two bits, white-is-zero; what the server opens is opened here too."""
    ids = np.zeros((64, 64), np.uint8)
    ids[8:20, 8:20], ids[30:40, 30:40] = 1, 3
    picture = Image.new("RGB", (64, 64))
    (tmp_path / "a.png").write_bytes(png(ids, 2))
    tifffile.imwrite(tmp_path / "a.tif", ids, photometric="miniswhite")
    for name in ("a.png", "a.tif"):
        assert np.array_equal(read_example(picture, tmp_path / name).labels.ids, ids)
    Image.fromarray(ids * 80).save(tmp_path / "a.webp")
    with pytest.raises(InputError, match=r"a\.webp: .*this WebP is lossy"):
        read_example(picture, tmp_path / "a.webp")


def test_masks_of_another_size_are_named(tmp_path):
    Image.new("L", (5, 5)).save(tmp_path / "mine.png")
    with pytest.raises(InputError, match=r"mine\.png: .*5×5"):
        read_example(Image.fromarray(scene(0)[0]), tmp_path / "mine.png")


def test_large_examples_are_made_small():
    large = Image.fromarray(scene(0)[0]).resize((2400, 1000))
    ids = np.kron(scene(0)[1], np.ones((5, 5))).astype(np.int32) * 700
    example = shrink(Example(large, ids))
    assert example.image.size == (1024, 427)
    assert tuple(example.labels.present) == (700,)
    assert example.labels.ids.shape == (427, 1024)


def test_names():
    assert parse_brush_names("cell, , dirt", [1, 2, 3]) == {1: "cell", 2: "blue", 3: "dirt"}
    assert parse_brush_names("", [8]) == {8: "pink"}
    assert parse_names("cell,, dirt", [3, 7, 9]) == {3: "cell", 9: "dirt"}
    assert parse_names(" ", [3]) == {}
    with pytest.raises(InputError, match="2 names for 1 ids"):
        parse_names("a, b", [3])


@pytest.mark.parametrize("scale", [1, 4])
def test_one_click_and_a_box_take_the_object(scale):
    picture, inside = scene(0)
    image = Image.fromarray(picture).resize((480 * scale, 200 * scale), Image.Resampling.BICUBIC)
    truth = np.kron(inside, np.ones((scale, scale), bool))
    rows, columns = np.nonzero(truth)
    clicked = grow_click(image, (int(columns.mean()), int(rows.mean())), 16)
    boxed = grow_box(image, (columns.min() - 6, rows.min() - 6, columns.max() + 6, rows.max() + 6))
    assert clicked.shape == truth.shape
    assert iou(clicked, truth) > 0.93
    assert iou(boxed, truth) > 0.9


@pytest.mark.parametrize("at", [(0, 0), (479, 199)])
def test_clicks_and_boxes_at_the_edge(at):
    image = Image.fromarray(scene(0)[0])
    assert grow_click(image, at, 16)[at[1], at[0]]
    assert grow_box(image, (*at, at[0] + 1, at[1] + 1)).shape == (200, 480)


def test_sam_where_its_weights_are(tmp_path):
    transformers = pytest.importorskip("transformers")
    assert Sam.cached("nowhere/sam") is None
    config = transformers.SamConfig(
        vision_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                       "output_channels": 16, "image_size": 64, "patch_size": 16, "mlp_dim": 32,
                       "num_pos_feats": 8, "global_attn_indexes": [0], "window_size": 2},
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16,
                               "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 1,
                             "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )  # fmt: skip
    transformers.SamModel(config).save_pretrained(tmp_path)
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    images = SamImageProcessorPil(
        size={"longest_edge": 64},
        pad_size={"height": 64, "width": 64},
        mask_size={"longest_edge": 16},
    )
    transformers.SamProcessor(images).save_pretrained(tmp_path)
    sam = Sam.cached(str(tmp_path))
    image = Image.fromarray(scene(0)[0])
    assert sam.pick(image, (40, 50), None).shape == (200, 480)
    assert sam.pick(image, None, (10, 10, 90, 90)).dtype == bool


def test_pairs_by_name():
    pictures = [Path("a.jpg"), Path("b.png")]
    masks = [Path("b_mask.png"), Path("a.png")]
    assert pair_up(pictures, masks) == [(pictures[0], masks[1]), (pictures[1], masks[0])]
    with pytest.raises(InputError, match=r"b\.png has no mask"):
        pair_up(pictures, masks[1:])
    with pytest.raises(InputError, match=r"c\.png belongs to no picture"):
        pair_up(pictures, [*masks, Path("c.png")])
    with pytest.raises(InputError, match="two masks for a"):
        pair_up(pictures, [*masks, Path("a_mask.png")])


class Visit:
    """What Gradio tells of who asks."""

    def __init__(self, session_hash: str) -> None:
        self.session_hash = session_hash


def test_one_job_a_visitor():
    jobs = jobs_module.Jobs()
    with jobs.run(Visit("a"), "quick") as stop:
        with pytest.raises(gr.Error, match="One job at a time"), jobs.run(Visit("a"), "long"):
            pass
        with jobs.run(Visit("b"), "long") as other:
            jobs.stop(Visit("a"))
            assert stop.is_set()
            assert not other.is_set()
    with jobs.run(Visit("a"), "quick") as again:
        assert not again.is_set()


def test_jobs_wait_for_each_other_but_not_without_end(monkeypatch):
    jobs, ran = jobs_module.Jobs(), []
    monkeypatch.setattr(jobs_module, "MAX_JOBS", 2)

    def second():
        with jobs.run(Visit("b"), "quick"):
            ran.append("b")

    with jobs.run(Visit("a"), "quick"):
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.2)
        assert not ran
        with pytest.raises(gr.Error, match="2 jobs are waiting"), jobs.run(Visit("c"), "long"):
            pass
    waiting.join(10)
    assert ran == ["b"]


def test_what_is_long_can_be_stopped():
    stop, steps = threading.Event(), []

    def work(on_progress):
        for step in range(1000):
            on_progress("step", step, 1000)
            steps.append(step)
            time.sleep(0.002)

    for stage, _, _ in run_in_background(work, stop):
        assert stage in ("step", "beginning")
        stop.set()
        break
    with pytest.raises(reporting.JobStopped):
        for _ in run_in_background(work, stop):
            pass
    assert len(steps) < 1000
    assert list(run_in_background(lambda on_progress: "done", threading.Event()))[-1] == "done"


def test_who_leaves_a_long_job_is_not_waited_for():
    stop, ended = threading.Event(), threading.Event()

    def work(on_progress):
        on_progress("step", 0, 2)
        ended.wait(20)
        on_progress("step", 1, 2)

    events = run_in_background(work, stop)
    next(events)
    events.close()  # returns although the work goes on
    assert stop.is_set()
    assert not ended.is_set()
    ended.set()


def test_errors_are_told_without_paths():
    @reporting.report_errors
    def fails(error):
        raise error

    with pytest.raises(gr.Error, match=r"^'?frames\.mp4: not a video") as caught:
        fails(InputError("/tmp/abc/def/frames.mp4: not a video"))
    assert "/tmp" not in str(caught.value)
    with pytest.raises(gr.Error, match="server's log") as caught:
        fails(KeyError("/secret/path"))
    assert "secret" not in str(caught.value)


def test_old_files_are_swept_and_a_new_session_begins(monkeypatch):
    with limits.temporary_root() as root:
        session, other = Session.create(), Session.resume(None)
        (session.folder / "file").write_text("x")
        old = time.time() - limits.MAX_AGE - 5
        import os

        os.utime(session.folder, (old, old))
        kept = sample_data.cells()[0][0]
        limits.sweep(root, interval=1e6)
        for _ in range(100):
            if not session.folder.exists():
                break
            time.sleep(0.05)
        assert not session.folder.exists()
        assert other.folder.exists()
        assert kept.exists()
        assert Session.resume(session) is not session
        assert Session.resume(other) is other
        other.close()
        assert not other.folder.exists()
    assert not root.exists()


def test_examples_of_a_session():
    with limits.temporary_root():
        session = Session.create()
        picture, inside = scene(0)
        large = Image.fromarray(picture).resize((2400, 1000))
        ids = np.kron(inside, np.ones((5, 5))).astype(np.uint8) * 4
        draft = DraftExample.shrink(large, ids)
        assert max(draft.picture.size) == 1024
        assert set(np.unique(draft.ids)) == {0, 4}
        session.add(draft)
        assert not session.add(DraftExample.shrink(large, ids))
        assert len(session.examples) == 1
        more = ids.copy()
        more[:150] = 4  # painted further: in place of what was painted before
        session.add(DraftExample.shrink(large, more))
        assert len(session.examples) == 1
        assert (session.examples[0].ids[:60] == 4).all()
        assert session.names("a, b, c, leaf") == {4: "leaf"}
        with pytest.raises(InputError, match="Nothing is painted"):
            DraftExample.shrink(large, ids * 0)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Random, in the bundled one's shape: these tests ask which frames are answered, not how."""
    torch.manual_seed(0)
    config = replace(
        SIZES["tiny"], example_attention="independent", relative_position=False,
        stem=(16, 16, 32), stem_blocks=1, copy_heads=2, copy_dim=8,
    )  # fmt: skip
    return Predictor(SegGPT(config))


def test_clip_goes_on_where_it_was_corrected(tmp_path, predictor):
    truth, stop = clip(tmp_path / "clip.mp4", 5), threading.Event()
    video = Clip.open(tmp_path / "clip.mp4", work(tmp_path))
    with pytest.raises(InputError, match="Paint the objects"):
        list(video.follow(predictor, stop))
    video.show(0)
    video.paint(0, truth[0].astype(np.uint8))
    assert [i for i, _ in video.follow(predictor, stop)] == [0, 1, 2, 3, 4]
    # Nothing changed: all of it anew. A frame that was looked at and left is no correction.
    _, ids = video.show(3)
    video.paint(3, ids)
    assert [i for i, _ in video.follow(predictor, stop)] == [0, 1, 2, 3, 4]
    video.show(3)
    before = video.ids(1).copy()
    video.paint(3, np.where(truth[3], 2, 0).astype(np.uint8))
    assert [i for i, _ in video.follow(predictor, stop)] == [3, 4]
    assert np.array_equal(video.ids(1), before)
    assert np.array_equal(video.ids(3) == 2, truth[3])
    movie, masks = video.write()
    assert movie.stat().st_size
    assert masks.stat().st_size


@pytest.mark.parametrize("painted", [0, 2, 4])
def test_stopped_clip_goes_on(tmp_path, predictor, painted):
    truth, stop = clip(tmp_path / "clip.mp4", 5), threading.Event()
    video = Clip.open(tmp_path / "clip.mp4", work(tmp_path))
    video.paint(painted, truth[painted].astype(np.uint8))
    stop.set()
    answered = []
    for _ in range(5):
        [(index, _)] = video.follow(predictor, stop)
        answered.append(index)
    assert answered == [*range(painted, 5), *reversed(range(painted))]
    # A correction voids what follows it, also where it is stopped at once.
    if painted == 0:
        video.show(3)
        video.paint(3, truth[3].astype(np.uint8) * 2)
        assert [i for i, _ in video.follow(predictor, stop)] == [3]
        assert video.result_frames == {0, 1, 2, 3}
        assert [i for i, _ in video.follow(predictor, stop)] == [4]
        # Another kind: all of it anew.
        assert [i for i, _ in video.follow(predictor, stop, kind="semantic")] == [0]
        assert video.result_frames == {0}


def work(folder: Path) -> Path:
    """A new folder for a clip."""
    path = folder / f"work{len(list(folder.glob('work*')))}"
    path.mkdir()
    return path


def test_clips_that_are_too_much(tmp_path, monkeypatch):
    clip(tmp_path / "clip.mp4", 5)
    monkeypatch.setattr("incontext.web.page.tracking.MAX_FRAMES", 4)
    with pytest.raises(InputError, match="5 frames; accepted here: 4"):
        Clip.open(tmp_path / "clip.mp4", work(tmp_path))
    monkeypatch.setattr("incontext.web.page.tracking.MAX_FRAMES", 9)
    monkeypatch.setattr("incontext.web.page.tracking.MAX_FRAME_PIXELS", 100)
    with pytest.raises(InputError, match="frames of 480×200"):
        Clip.open(tmp_path / "clip.mp4", work(tmp_path))


def test_ready_made_pictures_are_read_by_the_library(tmp_path):
    with limits.temporary_root():
        pictures, masks = sample_data.cells()
        assert len(pictures) == len(masks) == sample_data.CELLS
        assert Example(pictures[0], masks[0]).labels.present
        for name in sample_data.SCENES:
            assert Image.open(sample_data.target(name)).mode == "RGB"
        video = Clip.open(sample_data.clip(), work(tmp_path))
        assert video.count == sample_data.CLIP[2]
        assert sample_data.clip_ids(0).shape == sample_data.CLIP[:2]


def test_pictures_are_read_as_the_library_reads_them(tmp_path):
    values = np.arange(200 * 40, dtype=np.uint16).reshape(200, 40) // 2
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray(values.astype(np.float32) / 4000).save(tmp_path / "float.tif")
    clear = np.zeros((20, 20, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert 120 < np.asarray(limits.open_image(tmp_path / "deep.png")).mean() < 135
    assert 120 < np.asarray(limits.open_image(tmp_path / "float.tif")).mean() < 135
    assert limits.open_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


def test_255_is_read_alike_in_all_masks(tmp_path):
    picture = tmp_path / "picture.png"
    Image.fromarray(scene(0)[0]).save(picture)
    masks = [tmp_path / "a.png", tmp_path / "b.png"]
    ids = np.zeros((200, 480), np.uint8)
    ids[:20] = 255
    Image.fromarray(ids).save(masks[0])
    ids[50:90] = 1
    Image.fromarray(ids).save(masks[1])
    first, second = read_examples([picture] * 2, masks)
    assert tuple(first.labels.present) == ()
    assert tuple(second.labels.present) == (1,)
    colored = np.zeros((200, 480, 3), np.uint8)
    colored[:50], colored[80:] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(colored).save(masks[0])
    with pytest.raises(InputError, match=r"a\.png: .*color"):
        read_examples([picture], masks[:1])


def test_what_becomes_too_small_is_named():
    ids = np.zeros((1000, 2400), np.int32)
    ids[0, 0], ids[250:450, 250:450] = 7, 1
    with pytest.raises(InputError, match="id 7 is too small"):
        shrink(Example(Image.new("RGB", (2400, 1000)), ids))


@pytest.mark.parametrize("value", [float("nan"), None, 2.7, -1, 1e9, "x"])
def test_numbers_that_are_none(value):
    with pytest.raises(InputError, match="frame"):
        limits.parse_integer("frame", value, 0, 10)
    assert limits.parse_integer("frame", 3.0, 0, 10) == 3
    assert limits.parse_tile(0) is None
    with pytest.raises(InputError, match="tile 3; accepted: 16"):
        limits.parse_tile(3)


def test_paintings_of_a_million_colors_are_read():
    rng = np.random.default_rng(0)
    layer = rng.integers(0, 256, (1000, 1000, 4), np.uint8)
    value = {"background": Image.new("RGBA", (1000, 1000)), "layers": [Image.fromarray(layer)]}
    _, ids = read_editor(value)
    assert np.array_equal(ids > 0, layer[..., 3] > 85)
