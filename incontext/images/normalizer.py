"""Normalizer: RGB to a model's numbers and back. The only home of mean and std arithmetic."""

from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor


class Normalizer:
    """Converts RGB to a model's normalized numbers and back, on one device."""

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device | str | None = None,
    ) -> None:
        self.mean = torch.tensor(mean, device=device).view(3, 1, 1)
        self.std = torch.tensor(std, device=device).view(3, 1, 1)

    def __call__(self, rgb: Tensor) -> Tensor:
        """Normalize RGB in 0–1, (…, 3, H, W)."""
        return (rgb - self.mean) / self.std

    def colors(self, rgb: Tensor) -> Tensor:
        """Normalize colors in 0–1, (…, 3)."""
        return (rgb - self.mean.view(3)) / self.std.view(3)

    def invert(self, painting: Tensor) -> Tensor:
        """Return the RGB of a normalized painting, (…, 3, H, W); not clipped to 0–1."""
        return painting * self.std + self.mean

    def image(self, image: Image.Image, size: int) -> Tensor:
        """Resize an RGB image bicubically and normalize it, (3, size, size).

        As the official `run_inference_image` does.
        """
        small = image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=None)
        return self.array(np.asarray(small))

    def array(self, rgb: np.ndarray[Any, Any]) -> Tensor:
        """Normalize RGB in 0–255, (H, W, 3) → (3, H, W)."""
        # Division before subtraction, both in float32: the official order of rounding.
        values = torch.from_numpy(np.array(rgb, dtype=np.float32))
        return self(rearrange(values, "h w c -> c h w") / 255.0)

    def restore(self, painting: Tensor) -> Tensor:
        """Return the RGB of a normalized painting in 0–255, float32, clipped, (…, 3, H, W)."""
        return (self.invert(painting.float().to(self.mean.device)) * 255).clamp(0, 255)
