"""Exactness: against tensors of the official code, and against transformers on random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from incontext import Example, Predictor
from incontext.checkpoints.checkpoint import load
from incontext.images.image import read_image
from incontext.model import SegGPT, painting_loss

CASES = ["one_instance", "one_semantic", "three_instance", "eight_semantic"]
SIDE = 64


@pytest.fixture(scope="module")
def model(shared: Path) -> SegGPT:
    return load(shared / "parity/official_tiny.pth")


@pytest.fixture(scope="module")
def tensors(shared: Path) -> dict[str, torch.Tensor]:
    return load_file(shared / "parity/cases.safetensors")


def arguments(tensors: dict[str, torch.Tensor], case: str) -> tuple[torch.Tensor, ...]:
    """Query, example images, example targets, kind; the query's own target is left out."""
    image, color = tensors[f"{case}/image_canvas"], tensors[f"{case}/color_canvas"]
    semantic = torch.tensor([case.endswith("semantic")])
    return image[:1, :, SIDE:], image[None, :, :, :SIDE], color[None, :, :, :SIDE], semantic


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunk", [None, 1, 3, 8])
def test_official_paintings(model, tensors, case, chunk):
    with torch.inference_mode():
        painting = model(*arguments(tensors, case), chunk=chunk)
    torch.testing.assert_close(painting[0], tensors[f"{case}/prediction"], atol=1e-5, rtol=0)


def test_three_queries_at_once(model, tensors):
    """Queries of a batch do not see each other: each equals its own run, the first the oracle."""
    query, images, targets, semantic = arguments(tensors, "eight_semantic")
    queries = torch.cat([query, query.flip(-1), tensors["one_instance/image_canvas"][:, :, SIDE:]])
    with torch.inference_mode():
        together = model(queries, images, targets, semantic, chunk=3)
        alone = [model(q[None], images, targets, semantic)[0] for q in queries]
    expected = tensors["eight_semantic/prediction"]
    torch.testing.assert_close(together[0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=0)
    assert (together[1] - together[0]).abs().max() > 1e-2


@pytest.mark.parametrize("case", CASES[:2])
def test_official_canvas_and_loss(model, tensors, case):
    query, images, targets, semantic = arguments(tensors, case)
    with torch.inference_mode():
        whole = model(query, images, targets, semantic, whole_canvas=True)
    full = tensors[f"{case}/prediction_full"]
    torch.testing.assert_close(whole[0], full, atol=1e-5, rtol=0)
    canvas = tensors[f"{case}/color_canvas"]
    hidden = tensors[f"{case}/loss_mask"].bool().view(1, 8, 4)
    whole = model(
        query, images, targets, semantic, query_targets=canvas[:, :, SIDE:], hidden=hidden,
        whole_canvas=True,
    )  # fmt: skip
    loss = painting_loss(whole, canvas, hidden, tensors[f"{case}/loss_valid"])
    assert abs(loss.item() - tensors[f"{case}/loss"].item()) <= 1e-5
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.slow
def test_from_picture_files(shared):
    """Files through the Predictor: resizing, normalization, ensemble, painting in 0–255."""
    folder = shared / "parity/e2e"
    case = json.loads((folder / "case.json").read_text())
    predictor = Predictor.from_pretrained(folder / "official_tiny_448.pth")
    assert predictor.size == case["config"]["canvas_width"]
    paintings = np.load(folder / "paintings.npz")
    colors = {1: (255, 255, 255), 2: (230, 25, 75)}
    examples = [
        Example(folder / f"example_{k}.png", folder / f"example_{k}_target.png", colors=colors)
        for k in range(case["examples"])
    ]
    query = folder / "query.png"
    for count in (1, 2):
        prompt = predictor.prompt(examples[:count], kind=case["kind"], coloring=colors)
        [parts] = predictor.paint([read_image(query)], prompt)
        painting = parts[0].permute(1, 2, 0).numpy()
        assert np.abs(painting[::8, ::8] - paintings[f"painting_{count}"]).max() <= 0.02
        rows = painting[[0, 1, 200, 447]]
        assert np.abs(rows - paintings[f"painting_{count}_rows"]).max() <= 0.02
        result = predictor.predict(query, prompt)
        assert np.array_equal(result.paintings[0], painting.round())
        assert result.painting.shape == (*read_image(query).size[::-1], 3)


def test_transformers_one_example(tmp_path):
    """Our conversion and forward pass equal transformers' on its random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegGptConfig(
        hidden_size=32, num_hidden_layers=8, num_attention_heads=2, image_size=(64, 32),
        patch_size=8, pretrain_image_size=32, mlp_dim=128, decoder_hidden_size=8, merge_index=1,
        intermediate_hidden_state_indices=[1, 3, 5, 7],
    )  # fmt: skip
    theirs = transformers.SegGptForImageSegmentation(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert ours.config.merge_after == 1
    assert ours.config.taps == (1, 3, 5, 7)
    query, image, target = torch.randn(3, 1, 3, 32, 32)
    with torch.inference_mode():
        for kind in ("instance", "semantic"):
            expected = theirs(
                pixel_values=query, prompt_pixel_values=image, prompt_masks=target,
                embedding_type=kind,
            ).pred_masks[:, :, 32:]  # fmt: skip
            semantic = torch.tensor([kind == "semantic"])
            painting = ours(query, image[None], target[None], semantic)
            torch.testing.assert_close(painting, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 2e-2), (torch.float16, 5e-3)])
def test_half_precision_of_24_blocks(shared, tensors, dtype, limit):
    half = load(shared / "parity/official_tiny.pth").to(dtype)
    *pictures, semantic = arguments(tensors, "three_instance")
    with torch.inference_mode():
        painting = half(*(x.to(dtype) for x in pictures), semantic)[0].float()
    expected = tensors["three_instance/prediction"]
    assert (painting - expected).norm() / expected.norm() < limit
