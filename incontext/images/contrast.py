"""Contrast: numbers of more than 8 bits as 8-bit levels, by percentiles of what holds data."""

from typing import Any

import numpy as np

Values = np.ndarray[Any, Any]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# Of the valid values, that become 0 and 255. Objects under a microscope may cover less than a
# percent of the image, clouds and glints cover more.
GENERAL, AERIAL = (0.1, 99.9), (1, 99)
SAMPLE_PIXELS = 1_000_000  # evenly spread, that percentiles are taken of


def stretch(values: Values, valid_mask: Mask, percentiles: tuple[float, float]) -> Values:
    """Stretch numbers (B, H, W) to uint8, one range for all bands so that colors keep their hue.

    The percentiles become 0 and 255; if they are the same, the lowest and the highest valid value.
    A constant image is mid-gray.

    Args:
        valid_mask: (B, H, W), what holds data; what the others become means nothing.
    """
    # Percentiles of a sample, since sorting all of a large image takes longer than everything else;
    # that of a volume, whose slices are bands here, is no larger.
    step = max(1, values.size // min(len(values), 3) // SAMPLE_PIXELS)
    flat, flat_mask = (x.reshape(len(values), -1)[:, ::step] for x in (values, valid_mask))
    sample = flat[flat_mask]
    low = high = 0.0
    if sample.size:
        low, high = (float(v) for v in np.percentile(sample.astype(np.float64), percentiles))
    if low == high:
        valid = values[valid_mask]
        low, high = float(valid.min()), float(valid.max())
    result = np.full(values.shape, 128, np.uint8)
    for band in range(len(values) if low < high else 0):  # one at a time: these are floats
        level = np.where(valid_mask[band], values[band], low).astype(np.float64)
        result[band] = np.round(((level - low) / (high - low)).clip(0, 1) * 255)
    return result
