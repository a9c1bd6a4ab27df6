"""Int8 weights: the layer against its arithmetic written out, and a whole model."""

import pytest
import torch

from incontext import InputError, Predictor
from incontext.checkpoints.checkpoint import load, save
from incontext.model.int8 import Int8Linear


@pytest.mark.parametrize("shape", [(1, 8), (50, 8), (2, 3, 5, 8)])
def test_layer_equals_its_arithmetic(shape):
    """Weights rounded to 255 steps a row, inputs to 128 between their extremes."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 12)
    x = torch.randn(shape)
    scale = linear.weight.abs().amax(1, keepdim=True) / 127
    weight = (linear.weight / scale).round() * scale
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    step = (high - low) / 127
    zero = round(-low / step)
    rounded = (((x / step).round() + zero).clamp(0, 127) - zero) * step
    with torch.inference_mode():
        got = Int8Linear(linear)(x)
    expected = torch.nn.functional.linear(rounded, weight, linear.bias)
    torch.testing.assert_close(got, expected.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("joint", [True, False])
def test_model(joint, tiny_checkpoint):
    source = tiny_checkpoint if joint else "incontext-small"
    plain = Predictor.from_pretrained(source)
    quantized = Predictor.from_pretrained(source, dtype=torch.int8)
    assert quantized.device.type == "cpu"
    side = plain.size
    query = torch.randn(2, 3, side, side)
    images, targets = torch.randn(2, 1, 3, 3, side, side)
    semantic = torch.tensor([True])
    with torch.inference_mode():
        expected = plain.model(query, images, targets, semantic)
        got = quantized.model(query, images, targets, semantic)
    error = (got - expected).norm() / expected.norm()
    assert not torch.equal(got, expected)
    assert error < 0.05
    assert quantized.checkpoint == plain.checkpoint  # prompts can be shared


def test_elsewhere_it_is_refused(tiny_checkpoint):
    with pytest.raises(InputError, match="int8 weights on meta; accepted: device cpu"):
        Predictor.from_pretrained(tiny_checkpoint, dtype=torch.int8, device="meta")


def test_it_is_not_saved(tiny_checkpoint, tmp_path):
    model = load(tiny_checkpoint)
    Predictor(model, dtype=torch.int8)
    with pytest.raises(InputError, match="has int8 weights already"):
        Predictor(model)
    with pytest.raises(InputError, match=r"cannot be saved: .* missing: encoder.blocks.0.attn"):
        save(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
