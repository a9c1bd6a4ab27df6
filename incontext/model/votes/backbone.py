"""Backbone: a frozen pretrained network whose blocks describe what an image shows.

EfficientNet-Lite 0–2 (Tan and Le, arXiv 1905.11946; the Lite variants leave squeeze-excitation and
swish out): inverted residuals with ReLU6, TensorFlow's "same" padding, and batch normalization that
is folded into the convolutions (see `incontext.checkpoints.pretrained`). Letters: M pictures, H W
pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Width and depth of the variants, as multiples of the first's.
VARIANTS = {
    "efficientnet-lite0": (1.0, 1.0),
    "efficientnet-lite1": (1.0, 1.1),
    "efficientnet-lite2": (1.1, 1.2),
}
# Stages: blocks, channels, expansion, stride, kernel.
_STAGES = ((1, 16, 1, 1, 3), (2, 24, 6, 2, 3), (2, 40, 6, 2, 5), (3, 80, 6, 2, 3),
           (3, 112, 6, 1, 5), (4, 192, 6, 2, 5), (1, 320, 6, 1, 3))  # fmt: skip
_STEM = 32
# What the network was trained on: (RGB · 255 - 127) / 128.
_MEAN, _STD = 127 / 255, 128 / 255


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: with a stride of 2, more below and right."""

    def forward(self, x: Tensor) -> Tensor:
        """(M, in, H, W) → (M, out, ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for side in (x.shape[-1], x.shape[-2]):
            total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        if pads[0] == pads[1] == pads[2] == pads[3]:
            return F.conv2d(x, self.weight, self.bias, stride, pads[0], 1, self.groups)
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, stride, 0, 1, self.groups)


class InvertedResidual(nn.Module):
    """Widen, filter each channel by itself, narrow; add the input where shapes allow it."""

    def __init__(self, before: int, after: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        inner = before * expansion
        self.expand = SameConv(before, inner, 1) if expansion > 1 else None
        self.depthwise = SameConv(inner, inner, kernel, stride, groups=inner)
        self.project = SameConv(inner, after, 1)
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """(M, before, H, W) → (M, after, H / stride, W / stride)."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.adds else y


class Backbone(nn.Module):
    """EfficientNet-Lite without its classifier: the output of every block.

    Its weights are never trained; gradients still pass through to an image that requires them.

    Args:
        name: one of `VARIANTS`.
        mean, std: normalization of its input's RGB; its own is applied inside.
    """

    def __init__(self, name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        shape = [(n, c, e, s, k) for (n, c, e, k), s in _blocks(name)]
        self.stem = SameConv(3, _STEM, 3, 2)
        self.blocks = nn.ModuleList()
        self.channels: list[int] = []
        self.strides: list[int] = []
        before, total = _STEM, 2
        for _, channels, expansion, stride, kernel in shape:
            self.blocks.append(InvertedResidual(before, channels, expansion, stride, kernel))
            before, total = channels, total * stride
            self.channels.append(channels)
            self.strides.append(total)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalized RGB (M, 3, H, W) → the output of every block, (M, channels, H / stride, …)."""
        scale = images.new_tensor([s / _STD for s in self.std]).view(3, 1, 1)
        shift = images.new_tensor([(m - _MEAN) / _STD for m in self.mean]).view(3, 1, 1)
        x = (images * scale + shift).contiguous(memory_format=torch.channels_last)
        x = F.relu6(self.stem(x))
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs


def _blocks(name: str) -> list[tuple[tuple[int, int, int, int], int]]:
    """List (number, channels, expansion, kernel), stride of each block of a variant.

    The first and the last stage keep their depth in every variant.
    """
    width, depth = VARIANTS[name]
    blocks = []
    for index, (count, channels, expansion, stride, kernel) in enumerate(_STAGES):
        fixed = index in (0, len(_STAGES) - 1)
        wide = max(8, int(channels * width + 4) // 8 * 8)
        wide += 8 if wide < 0.9 * channels * width else 0
        for number in range(count if fixed else math.ceil(count * depth)):
            blocks.append(((number, wide, expansion, kernel), 1 if number else stride))
    return blocks
