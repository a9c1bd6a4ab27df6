"""Views: crops equal their formulas, fill their windows, and labels stay on their pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from incontext.data.pictures import IGNORE_INDEX
from incontext.data.views import (
    FULL_VIEW,
    JITTER_VALUES,
    Window,
    apply_color_jitter,
    color_jitter,
    paste_objects,
    random_crop,
    render,
)

SIZE = 48
WINDOWS = [
    FULL_VIEW, Window(right=0.0), Window(left=-0.25), Window(bottom=0.25),
    Window(-0.5, 0.0, 1.0, 0.75),
]  # fmt: skip
NEUTRAL = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
EMPTY = np.zeros((SIZE, SIZE), np.uint8)


def maps(count: int, labels: np.ndarray = EMPTY, window: Window = FULL_VIEW, seed: int = 0):
    """Affine maps of random crops, (count, 2, 3)."""
    rng = np.random.default_rng(seed)
    return np.stack([random_crop(rng, labels, 0.3, window) for _ in range(count)])


def corners(window: Window) -> np.ndarray:
    """(4, 3): x, y, 1."""
    across, down = (window.left, window.right), (window.top, window.bottom)
    return np.array([(x, y, 1) for x in across for y in down])


def upright(one: np.ndarray) -> bool:
    return one[0, 1] == one[1, 0] == 0


def test_windows_tile_the_view():
    for size in (15, 16, 33, 64):
        assert FULL_VIEW.pixels(size) == (slice(0, size), slice(0, size))
        for at in (-0.25, 0.0, 0.1, 0.25):
            canvas = np.zeros((size, size), int)
            for window in (
                Window(right=at, bottom=at), Window(left=at, bottom=at),
                Window(right=at, top=at), Window(left=at, top=at),
            ):  # fmt: skip
                canvas[window.pixels(size)] += 1
            assert (canvas == 1).all()
    assert Window(right=0.0).pixels(32) == (slice(0, 32), slice(0, 16))
    assert Window(top=0.25).pixels(32) == (slice(20, 32), slice(0, 32))


@pytest.mark.parametrize("window", WINDOWS)
def test_crop_fills_its_window(window):
    """The window's corners lie in the picture; proportions and the smallest area are kept."""
    extent = np.array([window.right - window.left, window.bottom - window.top]) / 2
    seen = 0
    for one in maps(200, window=window):
        # Picture lengths of a step right and a step down in the view: alike but for the aspect.
        right, down = np.linalg.norm(one[:, 0]), np.linalg.norm(one[:, 1])
        assert abs(np.log(right / down)) <= 0.4 + 1e-5
        assert abs(one[:, 0] @ one[:, 1]) < 1e-6  # turned, not sheared
        if not upright(one):
            continue
        seen += 1
        at = corners(window) @ one.T
        assert np.abs(at).max() <= 1 + 1e-5
        share = np.prod(np.ptp(at, 0) / 2)  # of the picture
        assert 0.3 * extent.prod() - 1e-5 <= share <= extent.prod() + 1e-5
    assert 100 < seen < 180


@pytest.mark.parametrize("window", WINDOWS)
def test_rendered_crop_is_in_its_window(window):
    """Red and green tell the position in the picture: the window shows all of the crop."""
    at = (torch.arange(SIZE) + 0.5) / SIZE
    ramp = torch.stack(
        [at.expand(SIZE, SIZE), at[:, None].expand(SIZE, SIZE), torch.zeros(SIZE, SIZE)]
    )
    down, right = window.pixels(64)
    pixel = 2 / 64 * 1.3  # of the view in the picture, at most
    for one in maps(20, window=window):
        if not upright(one):
            continue
        seen, _ = render(
            ramp[None], torch.zeros(1, SIZE, SIZE, dtype=torch.uint8),
            torch.from_numpy(one)[None], NEUTRAL[None], 64,
        )  # fmt: skip
        part = seen[0, :2, down, right].flatten(1) * 2 - 1
        whole = corners(window) @ one.T
        np.testing.assert_allclose(part.amin(1), whole.min(0), atol=pixel)
        np.testing.assert_allclose(part.amax(1), whole.max(0), atol=pixel)


def test_crop_keeps_labelled_pixels():
    """A single labelled pixel in a corner is in most crops; one in the ignore color is not."""
    labels = EMPTY.copy()
    labels[2, SIZE - 4] = 7
    point = (np.array([SIZE - 4, 2]) + 0.5) / SIZE * 2 - 1

    def share(where: np.ndarray) -> float:
        kept = [
            np.abs(np.linalg.solve(one[:, :2].astype(float), point - one[:, 2])).max() <= 1
            for one in maps(400, where)
            if upright(one)
        ]
        return float(np.mean(kept))

    assert share(labels) > 0.75
    assert share(EMPTY) < 0.6
    ignored = np.where(labels > 0, IGNORE_INDEX, 0).astype(np.uint8)
    assert np.array_equal(maps(20, ignored), maps(20))


def test_turns_and_flips():
    drawn = maps(600)
    turned = [not upright(one) for one in drawn]
    assert 0.2 < np.mean(turned) < 0.4
    assert 0.4 < np.mean(drawn[:, 0, 0] < 0) < 0.6
    assert 0.05 < np.mean(drawn[:, 1, 1] < 0) < 0.15
    assert np.array_equal(drawn, maps(600))
    assert not np.array_equal(drawn, maps(600, seed=1))


def reflected(position: float) -> float:
    """Pixel position → inside the picture, mirrored at its edges."""
    inside = abs(position + 0.5) % (2 * SIZE)
    return float(np.clip(min(inside, 2 * SIZE - inside) - 0.5, 0, SIZE - 1))


def test_render_by_hand():
    """Every pixel: its position mapped, four neighbors weighed for color, the nearest for ids."""
    rng = np.random.default_rng(0)
    pictures = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    labels = torch.from_numpy(rng.integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8))
    beyond = np.array([[0.97, 0.31, 0.43], [-0.29, -1.03, 0.02]])  # also past the edges
    affine = np.stack([maps(1)[0], maps(1, window=Window(right=0.0))[0], beyond])
    size = 8
    seen, where = render(
        pictures, labels, torch.from_numpy(affine).float(), NEUTRAL.expand(3, -1), size
    )
    assert where.dtype == torch.uint8
    for cell in range(3):
        for row in range(size):
            for column in range(size):
                view = np.array([(2 * column + 1) / size - 1, (2 * row + 1) / size - 1, 1])
                x, y = (reflected(((p + 1) * SIZE - 1) / 2) for p in affine[cell] @ view)
                color = np.zeros(3)
                for i in {int(y), min(int(y) + 1, SIZE - 1)}:
                    for j in {int(x), min(int(x) + 1, SIZE - 1)}:
                        weight = max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j))
                        color += weight * pictures[cell, :, i, j].numpy()
                np.testing.assert_allclose(seen[cell, :, row, column], color, atol=1e-4)
                near = labels[cell, int(np.rint(y)), int(np.rint(x))]
                assert where[cell, row, column] == near


def test_whole_picture_is_itself():
    pictures = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    labels = (pictures[:, 0] * 255).to(torch.uint8)
    same = torch.eye(2, 3).expand(2, -1, -1)
    seen, where = render(pictures, labels, same, NEUTRAL.expand(2, -1), SIZE)
    torch.testing.assert_close(seen, pictures, rtol=0, atol=1e-5)
    assert torch.equal(where, labels)


@pytest.mark.parametrize("window", WINDOWS)
def test_labels_stay_on_their_pixels(window):
    """Each id has its color: inside its area the view shows just that color."""
    labels = EMPTY.copy()
    labels[6:26, 8:30], labels[30:44, 20:42], labels[:3] = 1, 2, IGNORE_INDEX
    colors = torch.zeros(256, 3)
    colors[[0, 1, 2, IGNORE_INDEX]] = torch.tensor(
        [[0.5, 0.5, 0.5], [0.9, 0.1, 0.1], [0.1, 0.1, 0.9], [0.1, 0.9, 0.1]]
    )
    ids = torch.from_numpy(labels)
    picture = colors[ids.long()].permute(2, 0, 1)
    affine = torch.from_numpy(maps(24, labels, window))
    seen, where = render(
        picture.expand(24, -1, -1, -1), ids.expand(24, -1, -1), affine, NEUTRAL.expand(24, -1), 64
    )
    expected = colors[where.long()].permute(0, 3, 1, 2)
    wide = where[:, None].float()
    inner = (F.max_pool2d(wide, 5, 1, 2) == wide) & (-F.max_pool2d(-wide, 5, 1, 2) == wide)
    inner = inner[..., 2:-2, 2:-2]  # at the border a label may begin next to what is seen
    assert inner.float().mean() > 0.5
    wrong = (seen - expected).abs().amax(1, keepdim=True)[..., 2:-2, 2:-2] > 0.02
    assert not (wrong & inner).any()
    assert set(where.unique().tolist()) == {0, 1, 2, IGNORE_INDEX}


def test_recolor_by_hand():
    pictures = torch.rand(5, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    tone = torch.from_numpy(color_jitter(np.random.default_rng(0), 5)) * 1.5
    got = apply_color_jitter(pictures, tone)
    for picture, (*gain, shift, contrast, saturation), result in zip(
        pictures.double().numpy(), tone.double().tolist(), got, strict=True
    ):
        mean = picture.mean()
        stretched = mean + np.exp(contrast) * (picture - mean)
        gray = stretched.mean(0)
        for channel in range(3):
            vivid = gray + np.exp(saturation) * (stretched[channel] - gray)
            expected = (vivid * gain[channel] + shift).clip(0, 1)
            np.testing.assert_allclose(result[channel], expected, atol=1e-5)
    torch.testing.assert_close(apply_color_jitter(pictures, NEUTRAL.expand(5, -1)), pictures)


def test_tones_are_mostly_shared():
    drawn = np.stack([color_jitter(np.random.default_rng(seed), 4) for seed in range(300)])
    assert drawn.shape == (300, 4, JITTER_VALUES)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.mean((0, 1)), NEUTRAL, atol=0.05)
    within, between = drawn.std(1).mean(0), drawn.mean(1).std(0)
    assert (within < between).all()
    assert (within[:5] > 0.02).all()
    assert within[5] < 1e-6  # saturation is the same in all views


def test_paste_by_hand():
    generator = torch.Generator().manual_seed(0)
    pictures, behind = torch.rand(2, 2, 3, 9, 9, generator=generator)
    labels = torch.zeros(2, 9, 9, dtype=torch.uint8)
    labels[0, 2:7, 3:9], labels[0, 7:] = 1, IGNORE_INDEX
    labels[1, :4, :4], labels[1, 4, 4] = 2, 1
    got = paste_objects(pictures, labels, behind)
    for cell in range(2):
        for row in range(9):
            for column in range(9):
                around = labels[cell, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
                alpha = ((around > 0) & (around != IGNORE_INDEX)).float().mean()
                one, other = (x[cell, :, row, column] for x in (pictures, behind))
                expected = alpha * one + (1 - alpha) * other
                torch.testing.assert_close(got[cell, :, row, column], expected)
    assert torch.equal(got[0, :, 0], behind[0, :, 0])  # far from the object
    torch.testing.assert_close(got[0, :, 3:6, 4:], pictures[0, :, 3:6, 4:])  # well inside it
