"""Features of images by themselves, as a voting model reads them.

Letters: M images, n heads, d channels of a head, h w rows and columns of a grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageFeatures:
    """What a voting model computes of images by themselves: no example changes it."""

    image: Tensor  # (M, 3, H, W) normalized RGB
    blocks: list[Tensor]  # of the voting blocks, unit vectors (M, h·w, c)
    grids: list[tuple[int, int]]
    context: Tensor  # (M, C, H/8, W/8)
    skips: tuple[Tensor, Tensor]  # at strides 4 and 2
    keys: Tensor  # (M, n, H/4·W/4, d), of the copy path
    match_features: Tensor  # (M, n, H/8·W/8, d), of the learned matching

    @classmethod
    def concat(cls, parts: "Sequence[ImageFeatures]") -> "ImageFeatures":
        """Concatenate the features of images of one size."""
        return cls(
            torch.cat([x.image for x in parts]),
            [torch.cat(blocks) for blocks in zip(*(x.blocks for x in parts), strict=True)],
            parts[0].grids,
            torch.cat([x.context for x in parts]),
            (torch.cat([x.skips[0] for x in parts]), torch.cat([x.skips[1] for x in parts])),
            torch.cat([x.keys for x in parts]),
            torch.cat([x.match_features for x in parts]),
        )

    def take(self, numbers: Tensor) -> "ImageFeatures":
        """Take some of the images, by number."""
        return ImageFeatures(
            self.image[numbers], [x[numbers] for x in self.blocks], self.grids,
            self.context[numbers], (self.skips[0][numbers], self.skips[1][numbers]),
            self.keys[numbers], self.match_features[numbers],
        )  # fmt: skip


class FeatureCache:
    """The features of the images asked for last, which a video asks for several times.

    A frame is a query, then an example, and the annotated frame is a query again and again.
    Several threads may use it at once.

    Args:
        size: number of images that it holds.
    """

    def __init__(self, size: int = 6) -> None:
        self.size = size
        self.entries: tuple[ImageFeatures, ...] = ()  # the last one asked for first

    def get(self, image: Tensor, extract: Callable[[Tensor], ImageFeatures]) -> ImageFeatures:
        """Return the features of one image (1, 3, H, W), extracted unless it is held."""
        entries = self.entries
        held = next((x for x in entries if _is_equal(x.image, image)), None)
        features = extract(image) if held is None else held
        self.entries = (features, *(x for x in entries if x is not held))[: self.size]
        return features


def _is_equal(a: Tensor, b: Tensor) -> bool:
    """Return whether tensors are equal; those of two devices or dtypes are not."""
    return a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)


def check_images(name: str, x: Tensor, dims: int, patch: int) -> None:
    """Raise ValueError unless `x` has `dims` dimensions and a size of whole patches."""
    if x.dim() != dims or x.shape[-3] != 3 or x.shape[-1] % patch or x.shape[-2] % patch:
        raise ValueError(
            f"{name} have shape {tuple(x.shape)}; accepted: {dims} dimensions, 3 channels, "
            f"height and width multiples of {patch}"
        )


def scale_to_unit(x: Tensor) -> Tensor:
    """Scale features (M, C, h, w) to a standard deviation of 1 in each image.

    Blocks of a frozen network differ a hundredfold in size; no mean is taken off, since it says
    how much of a feature there is.
    """
    return x / (x.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
