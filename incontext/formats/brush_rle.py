"""Brush RLE: masks in the run lengths of Label Studio, which are those of thi.ng/rle-pack."""

from typing import Any

import numpy as np

from incontext.errors import ShapeError

SIZES = (3, 4, 8, 16)  # bits that lengths of runs may have


def encode(mask: "np.ndarray[Any, np.dtype[np.bool_]]") -> list[int]:
    """Encode (H, W) bool as bytes of the brush format: runs of RGBA values, 0 or 255.

    The format: 32 bits the number of values, 5 bits the word size less 1, four times 4 bits the
    sizes of run lengths less 1; then runs: 1, two bits which size, the length less 1, the value.
    """
    flat = np.repeat(mask.ravel(), 4)
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    bits = [f"{flat.size:032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    start = 0
    for end in ends.tolist():
        while start < end:
            length = min(end - start, 1 << SIZES[-1]) - 1
            choice = next(i for i, size in enumerate(SIZES) if length < 1 << size)
            value = 255 if flat[start] else 0
            bits.append(f"1{choice:02b}{length:0{SIZES[choice]}b}{value:08b}")
            start += length + 1
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode(rle: list[int], shape: tuple[int, int]) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Decode what `encode`, or Label Studio, wrote to (H, W) bool; `shape` is (height, width).

    Raises:
        ShapeError: not bytes of this format, or of another size.
    """
    if not rle or not all(type(byte) is int and 0 <= byte <= 255 for byte in rle):
        raise ShapeError("brush RLE must be whole numbers 0 … 255")
    text, at = "".join(f"{byte:08b}" for byte in rle), 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        if at > len(text):
            raise ShapeError("brush RLE ends within a run")
        return int(text[at - count : at], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    if word != 8:
        raise ShapeError(f"brush RLE of {word} bits a value; expected 8")
    if total != shape[0] * shape[1] * 4:
        raise ShapeError(f"brush RLE of {total} values; expected {shape[1]} · {shape[0]} · 4")
    values, position = np.zeros(total, np.uint8), 0
    while position < total:
        repeats, length = read(1), read(sizes[read(2)]) + 1
        if position + length > total:
            raise ShapeError("brush RLE holds more values than it says")
        run = read(word) if repeats else [read(word) for _ in range(length)]
        values[position : position + length] = run
        position += length
    return values.reshape(*shape, 4)[..., 3] > 127
