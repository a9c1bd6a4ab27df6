"""Baselines without a model: copying the example's mask, nearest neighbor on simple features.

Both segment one query; examples are pairs of image (S, S, 3) uint8 and mask (S, S) bool.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import KDTree

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# Weights of RGB (0–1), local contrast (0–1) and position (0–1) in the distance.
WEIGHTS = (1.0, 1.0, 0.5)


def copy_mask(query: Pixels, examples: Sequence[tuple[Pixels, Mask]]) -> Mask:
    """Return the majority of the examples' masks."""
    return np.asarray(np.mean([mask for _, mask in examples], 0) > 0.5)


def features(image: Pixels) -> torch.Tensor:
    """Return color, standard deviation of gray in 5×5 pixels, and position: (S·S, 6)."""
    rgb = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)
    gray = F.pad(rgb.mean(0)[None, None], (2, 2, 2, 2), mode="replicate")
    mean, square = F.avg_pool2d(gray, 5, 1), F.avg_pool2d(gray**2, 5, 1)
    contrast = (square - mean**2).clamp(min=0).sqrt()[0]
    side = torch.linspace(0, 1, image.shape[0])
    rows, columns = torch.meshgrid(side, side, indexing="ij")
    color_weight, contrast_weight, place_weight = WEIGHTS
    position = torch.stack([rows, columns]) * place_weight
    stacked = torch.cat([rgb * color_weight, contrast * contrast_weight, position])
    return stacked.flatten(1).T


def nearest_neighbor(query: Pixels, examples: Sequence[tuple[Pixels, Mask]]) -> Mask:
    """Give each pixel the label of the nearest example pixel in feature space."""
    example_features = torch.cat([features(image) for image, _ in examples])
    labels = np.concatenate([mask.reshape(-1) for _, mask in examples])
    _, nearest = KDTree(example_features.numpy()).query(features(query).numpy())
    return np.asarray(labels[nearest].reshape(query.shape[:2]))
