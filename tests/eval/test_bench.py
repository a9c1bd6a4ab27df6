"""The benchmark: intervals, the same pictures for all, a trained U-Net, and going on."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from eval.core.metrics import FewShotIoU
from eval.studies import bench, same_images, unet
from eval.studies.common import ImageSet
from incontext import Predictor, Settings
from incontext.errors import InputError
from incontext.evaluation.confusion import RESAMPLES, resamples

SIDE = 24


def picture(rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """A bright square on dark noise; its left half has class 1, its right half class 2."""
    top, left = rng.integers(0, SIDE - 12, 2)
    pixels = rng.integers(0, 80, (SIDE, SIDE, 3))
    pixels[top : top + 12, left : left + 12] += 150
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[top : top + 12, left : left + 6], ids[top : top + 12, left + 6 : left + 12] = 1, 2
    return Image.fromarray(pixels.astype(np.uint8)), ids


@pytest.fixture
def data(tmp_path):
    rng, items = np.random.default_rng(0), []
    with tarfile.open(tmp_path / "squares.tar", "w") as tar:
        for number in range(9):
            image, ids = picture(rng)
            for name, one in ((f"images/{number}.jpg", image),
                              (f"labels/{number}.png", Image.fromarray(ids))):  # fmt: skip
                buffer = io.BytesIO()
                one.save(buffer, "PNG" if name.endswith("png") else "JPEG")
                info = tarfile.TarInfo(name)
                info.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(info, buffer)
            items.append({"id": str(number), "size": [SIDE, SIDE], "classes": [1, 2]})
    metadata = {"kind": "semantic", "title": "", "classes": {"1": "left", "2": "right"}}
    (tmp_path / "squares.json").write_text(json.dumps({**metadata, "items": items}))
    return tmp_path


def test_bootstrap_equals_a_loop():
    rng = np.random.default_rng(0)
    meter = FewShotIoU()
    for number in range(7):
        one, two = rng.random((2, 5, 5)) > 0.5
        meter.add(number % 2, one, two)
    samples = meter.bootstrap()
    weights = {i: resamples(sum(r[0] == i for r in meter.rows), i) for i in (0, 1)}
    for at in (0, 1, RESAMPLES - 1):
        by_class = []
        for index in (0, 1):
            rows = [r for r in meter.rows if r[0] == index]
            both = sum(w * r[3] for w, r in zip(weights[index][at], rows, strict=True))
            either = sum(w * r[4] for w, r in zip(weights[index][at], rows, strict=True))
            by_class.append(100 * both / either)
        assert samples[at] == pytest.approx(np.mean(by_class))
    interval = meter.interval()
    assert interval.low < interval.value == meter.miou() < interval.high


def test_dice_by_hand():
    meter = FewShotIoU([[1, 0, 0, 2, 6]])  # 2 in both, 6 in either: 4 and 4
    assert meter.dice() == pytest.approx(50.0)
    assert meter.miou() == pytest.approx(100 / 3)


@pytest.mark.slow
def test_small_unet_learns_from_three_pictures():
    rng = np.random.default_rng(1)
    pairs = [picture(rng) for _ in range(4)]
    examples = [(image, (ids > 0).astype(np.int16)) for image, ids in pairs]
    net = unet.fit(examples[:3], steps=40)
    predicted, truth = unet.segment(net, examples[3][0]), examples[3][1] == 1
    assert predicted.shape == truth.shape
    assert (predicted & truth).sum() / (predicted | truth).sum() > 0.8
    net, same_net = (unet.fit(examples[:3], steps=2) for _ in range(2))
    for a, b in zip(net.parameters(), same_net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_unknown_pixels_teach_nothing():
    logits = torch.randn(1, 8, 8)
    truth = (torch.rand(1, 8, 8) > 0.5).long()
    truth[:, :4] = -1
    changed = logits.clone()
    changed[:, :4] = 9
    assert torch.equal(unet.compute_loss(logits, truth), unet.compute_loss(changed, truth))


def test_draws_keep_queries_apart(data):
    squares = ImageSet.read(data / "squares.tar")
    draws = same_images.draw_classes(squares, 4)
    assert [draw.index for draw in draws] == [1]
    for draw in draws:
        assert len(draw.examples) == 4
        assert len(draw.queries) == 5
        assert not set(draw.examples) & set(draw.queries)
    assert same_images.draw_classes(squares, 6) == []  # three queries are too few


def test_bench_goes_on(data, tiny_checkpoint, tmp_path, capsys):
    name, out = str(tiny_checkpoint), tmp_path / "out"
    bench.run(data, name, [1, 2], 4, out, methods=["copy", name, "one-view", "examples"])
    whole = json.loads((out / "bench.json").read_text())
    printed = capsys.readouterr().out
    assert "| squares | " in printed
    assert printed.count("mean, all") == 2
    # Killed and started again: what is there is not done again, and comes to the same.
    cut = json.loads(json.dumps(whole))
    del cut["tables"]["episodes"]["squares"]["copy"]
    (out / "bench.json").write_text(json.dumps(cut))
    bench.run(data, name, [1, 2], 4, out, methods=["copy", name, "one-view", "examples"])
    assert json.loads((out / "bench.json").read_text()) == whole
    assert capsys.readouterr().out == printed
    meter = FewShotIoU(whole["tables"]["episodes"]["squares"]["copy"]["1"])
    assert f"{meter.miou():.1f} ±" in printed
    with pytest.raises(InputError, match="another --out"):
        bench.run(data, name, [1, 2], 5, out, methods=["copy"])
    with pytest.raises(InputError, match="accepted"):
        bench.run(data, name, [1], 4, methods=["unet"])


def test_tuned_and_trained_answer_for_the_same_queries(data, tiny_checkpoint):
    """The methods' parts fit together; how well they do is for the benchmark."""
    squares = ImageSet.read(data / "squares.tar")
    predictor = Predictor.from_pretrained(tiny_checkpoint)
    effort = same_images.Effort(Settings(steps=1, evaluations=1), training=1)
    for method in same_images.METHODS:
        rows = same_images.score(predictor, squares, method, 4, 4, effort)
        assert [row[0] for row in rows] == [1] * 5
        assert all(sum(row[1:]) > 0 for row in rows)


def test_paired_episodes_ask_the_same_queries(data):
    """Whatever the number of examples; fewer examples are the first of more."""
    images = ImageSet.read(data / "squares.tar")
    images_by_count: dict[int, list[list[int]]] = {}

    def watch(count):
        def method(_, episode):
            images_by_count.setdefault(count, []).append(episode.images)
            return np.zeros((SIDE, SIDE), bool)

        return method

    for count in (1, 3):
        bench.score(images, watch(count), count, 6, draw_count=3)
    assert [one[-1] for one in images_by_count[1]] == [three[-1] for three in images_by_count[3]]
    assert [one[0] for one in images_by_count[1]] == [three[0] for three in images_by_count[3]]
    assert [len(one) for one in images_by_count[1]] == [2] * 6
