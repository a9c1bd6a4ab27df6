"""What onnxruntime's path computes in numpy is what the torch path computes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from incontext.inference.calibration import Calibration
from incontext.inference.decoding import Answer, Reading, decode_image
from incontext.inference.onnx import reading
from incontext.inference.onnx.cell_selection import select_cells
from incontext.inference.onnx.reading import Reader
from incontext.model.quality import QualityHead
from incontext.model.thinning import select_tokens

SEEDS = st.integers(0, 1000)


@given(SEEDS, st.integers(1, 5), st.integers(2, 9), st.floats(0.05, 1.2), st.floats(0, 1))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_the_same_cells_are_kept(seed, views, side, ratio, share):
    marked = np.random.default_rng(seed).random((views, side, side + 1)) < share
    expected = select_tokens(
        torch.from_numpy(marked)[None], ratio, seed, torch.ones(1, *marked.shape, dtype=torch.bool)
    )
    indices, weight = select_cells(marked, ratio, seed)
    np.testing.assert_array_equal(indices, expected.indices[0].numpy())
    np.testing.assert_allclose(weight, expected.weight[0].numpy(), atol=1e-6)


def test_views_of_one_pattern_keep_what_the_first_keeps():
    marked = np.zeros((3, 8, 8), bool)
    indices, _ = select_cells(marked, 0.25, 5, differ=False)
    assert (indices == select_cells(marked[:1], 0.25, 0).indices).all()


def reader_and_calibration(head: bool) -> tuple[Reader, Calibration]:
    torch.manual_seed(0)
    quality = QualityHead(16) if head else None
    weights = quality and {name: x.numpy() for name, x in quality.state_dict().items()}
    return Reader(0.7, -0.2, weights), Calibration(0.7, -0.2, quality)


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("ids", [1, 2, 5])
@pytest.mark.parametrize("has_mask", [True, False])
@pytest.mark.parametrize("size", [(40, 30), (9, 17)])
def test_logits_are_read_alike(ids, head, has_mask, size):
    """Labels, confidence, presence and quality, larger and smaller than the model sees."""
    rng = np.random.default_rng(ids)
    logits = rng.normal(-1, 3, (ids, 16, 16)).astype(np.float32)
    logits[-1] = np.minimum(logits[-1], -2)  # absent
    pixels = rng.integers(0, 255, (*size, 4), np.uint8)
    pixels[..., 3] = 255
    if has_mask:
        pixels[: size[0] // 3, :, 3] = 0
    image = Image.fromarray(pixels)
    from incontext import read_image
    from incontext.images.data_mask import data_mask

    image = read_image(image)
    numbers = tuple(range(3, 3 + ids))
    coloring = SimpleNamespace(ids=numbers)
    prompt = SimpleNamespace(
        ids=numbers, passes=[SimpleNamespace(coloring=coloring)], colors={}, names={}
    )
    reader, calibration = reader_and_calibration(head)
    answer = Answer.from_logits(prompt, [torch.from_numpy(logits)], [])
    expected = decode_image(image, prompt, answer, Reading(calibration, 0.5))

    probabilities = reading.softmax(logits)
    np.testing.assert_allclose(probabilities, answer.probabilities.numpy(), atol=1e-6)
    mask = data_mask(image)
    presence = reading.presence(probabilities, mask)
    np.testing.assert_allclose(presence, list(expected.presence.values()), atol=1e-5)
    valid = None
    if mask is not None:
        valid = np.asarray(Image.fromarray(mask).resize((16, 16), Image.Resampling.NEAREST))
    quality = reader.quality(probabilities, valid) * (presence >= 0.5)
    np.testing.assert_allclose(quality, list(expected.quality.values()), atol=1e-4)
    for rows, values in reading.upsample_rows(probabilities, size):
        label, confidence = reader.read(values, presence >= 0.5)
        labels = np.array([0, *numbers])[label]
        known = slice(None) if mask is None else mask[rows]
        agree = (labels == expected.labels[rows])[known]
        assert agree.mean() > 0.995  # ties may go either way
        np.testing.assert_allclose(
            confidence[known][agree], expected.confidence[rows][known][agree], atol=1e-4
        )
