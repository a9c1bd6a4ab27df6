"""Tiles: squares that overlap, for large images at full detail."""

import math
from dataclasses import dataclass

from incontext.errors import InputError

Box = tuple[int, int, int, int]  # left, top, right, bottom


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Return where tiles begin along one axis, evenly spread; neighbors share `overlap` or more."""
    if length <= tile:
        return [0]
    count = 1 + -(-(length - tile) // max(1, int(tile * (1 - overlap))))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


@dataclass(frozen=True)
class Tiling:
    """Overlapping square tiles over an image of width × height; smaller ones if the image is."""

    width: int
    height: int
    tile: int
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if self.tile < 16:
            raise InputError(f"tile is {self.tile} pixels; accepted: 16 or more")

    def __len__(self) -> int:
        sides = (self.height, self.width)
        return math.prod(len(tile_starts(side, self.tile, self.overlap)) for side in sides)

    def boxes(self) -> list[Box]:
        """Return all tiles, row by row."""
        return [
            (x, y, min(x + self.tile, self.width), min(y + self.tile, self.height))
            for y in tile_starts(self.height, self.tile, self.overlap)
            for x in tile_starts(self.width, self.tile, self.overlap)
        ]
