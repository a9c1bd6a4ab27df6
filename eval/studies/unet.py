"""A small U-Net trained on the k examples alone: the alternative to in-context learning.

Plain on purpose: four levels, widths 8 to 64, group norm, binary cross-entropy plus Dice, flips,
crops and recoloring. For orientation, not tuned.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from incontext.images.image import resize_nearest

SIZE = 96  # pixels, in training and prediction
STEPS, BATCH_SIZE, LEARNING_RATE = 200, 4, 3e-3
WIDTHS = (8, 16, 32, 64)
Maps = np.ndarray[Any, np.dtype[np.int16]]  # (H, W): 1 object, 0 not, -1 unknown


class UNet(nn.Module):
    """(B, 3, S, S) in 0–1 → logits (B, S, S); S divisible by 8."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _block(a, b) for a, b in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
        )
        pairs = list(zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        self.up = nn.ModuleList(_block(a + b, b) for a, b in pairs)
        self.head = nn.Conv2d(WIDTHS[0], 1, 1)
        # Twice as fast on CPUs. (torch's stubs lack the argument.)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (B, 3, S, S) → (B, S, S)."""
        skips = []
        x = (x - 0.5).contiguous(memory_format=torch.channels_last)
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            wide = F.interpolate(x, scale_factor=2, mode="bilinear")
            x = block(torch.cat([wide, skip], 1))
        return self.head(x)[:, 0]


def _block(inside: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, out, 3, padding=1), nn.GroupNorm(8, out), nn.ReLU(),
        nn.Conv2d(out, out, 3, padding=1), nn.GroupNorm(8, out), nn.ReLU(),
    )  # fmt: skip


def fit(examples: Sequence[tuple[Image.Image, Maps]], seed: int = 0, steps: int = STEPS) -> UNet:
    """Train on examples from scratch; the same seed gives the same weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = UNet()
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        batch = rng.integers(len(examples), size=BATCH_SIZE)
        images, truth = zip(*(_view(rng, *examples[i]) for i in batch), strict=True)
        loss = compute_loss(net(torch.stack(images)), torch.stack(truth))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def compute_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return binary cross-entropy plus one minus Dice, over known pixels; both (B, S, S)."""
    valid_mask = truth >= 0
    target = truth.clamp(min=0).float()
    entropy = F.binary_cross_entropy_with_logits(logits[valid_mask], target[valid_mask])
    probabilities = logits.sigmoid() * valid_mask
    overlap = (2 * (probabilities * target).sum() + 1) / (probabilities.sum() + target.sum() + 1)
    return entropy + 1 - overlap


def _view(rng: np.random.Generator, image: Image.Image, ids: Maps) -> tuple[Tensor, Tensor]:
    """Crop half of the sides or more at random, flip and recolor: (3, S, S) and (S, S)."""
    share = rng.uniform(0.5, 1)
    width, height = (max(1, round(share * n)) for n in image.size)
    x = int(rng.integers(image.width - width + 1))
    y = int(rng.integers(image.height - height + 1))
    view = _tensor(image.crop((x, y, x + width, y + height)))
    truth = torch.from_numpy(
        resize_nearest(ids[y : y + height, x : x + width], (SIZE, SIZE)).copy()
    )
    for axis in (1, 2):
        if rng.random() < 0.5:
            view, truth = view.flip(axis), truth.flip(axis - 1)
    gain = torch.from_numpy(rng.uniform(0.8, 1.2, (3, 1, 1))).float()
    return (view * gain + float(rng.uniform(-0.1, 0.1))).clamp(0, 1), truth


def _tensor(image: Image.Image) -> Tensor:
    small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(small, np.float32) / 255).permute(2, 0, 1)


@torch.inference_mode()
def segment(net: UNet, image: Image.Image) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return the mask of an image at its own size, (H, W) bool."""
    logits = net(_tensor(image)[None])[0].numpy()
    return np.asarray(resize_nearest(logits > 0, (image.height, image.width)))
