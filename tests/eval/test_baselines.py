"""The baselines without a model."""

import numpy as np
import torch

from eval.studies.baselines import copy_mask, features, nearest_neighbor


def draw_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((24, 24), bool)
    top, left = rng.integers(0, 14, 2)
    mask[top : top + 8, left : left + 8] = True
    picture = rng.integers(0, 90, (24, 24, 3)) + mask[..., None] * 120
    return picture.astype(np.uint8), mask


def test_nearest_neighbor_equals_all_distances():
    rng = np.random.default_rng(0)
    query, truth = draw_pair(rng)
    examples = [draw_pair(rng) for _ in range(3)]
    example_features = torch.cat([features(picture) for picture, _ in examples])
    labels = np.concatenate([mask.ravel() for _, mask in examples])
    naive = labels[
        torch.cdist(
            features(query), example_features, compute_mode="donot_use_mm_for_euclid_dist"
        ).argmin(1)
    ]
    answer = nearest_neighbor(query, examples)
    assert np.array_equal(answer, naive.reshape(24, 24))
    assert (answer & truth).sum() / (answer | truth).sum() > 0.8


def test_copied_masks_vote():
    masks = [np.array([[a, b]], bool) for a, b in ((1, 0), (1, 1), (0, 0))]
    picture = np.zeros((1, 2, 3), np.uint8)
    assert copy_mask(picture, [(picture, mask) for mask in masks]).tolist() == [[True, False]]
