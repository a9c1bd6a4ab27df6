"""Writers of masks that Pillow and tifffile have not: few bits a sample, in the plainest way."""

import struct
import zlib

import numpy as np


def pack(values: np.ndarray, bits: int) -> bytes:
    """Rows (H, W) of samples of 1, 2, 4, 8 or 16 bits, each row from a byte of its own on."""
    if bits == 16:
        return values.astype(">u2").tobytes()
    spread = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    return np.packbits(spread.reshape(len(values), -1), axis=1).tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(values: np.ndarray, bits: int, palette: np.ndarray | None = None) -> bytes:
    """A PNG of gray, or of a palette (N, 3) uint8."""
    height, width = values.shape
    packed = pack(values, bits)
    stride = len(packed) // height
    rows = b"".join(b"\0" + packed[r * stride : (r + 1) * stride] for r in range(height))
    head = struct.pack(">IIBBBBB", width, height, bits, 0 if palette is None else 3, 0, 0, 0)
    colors = b"" if palette is None else chunk(b"PLTE", palette.tobytes())
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + colors
        + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )  # fmt: skip


def tiff(
    values: np.ndarray, bits: int, photometric: int, more: dict[int, int] | None = None
) -> bytes:
    """A TIFF of one strip, unsigned samples of 1, 2, 4 or 8 bits; `more`: other short tags."""
    data = pack(values, bits)
    tags = {
        256: values.shape[1], 257: values.shape[0], 258: bits, 259: 1, 262: photometric, 273: 8,
        277: 1, 278: values.shape[0], 279: len(data), **(more or {}),
    }  # fmt: skip
    padded = data + b"\0" * (len(data) % 2)
    entries = b"".join(struct.pack("<HHIHH", t, 3, 1, v, 0) for t, v in sorted(tags.items()))
    return (
        b"II*\0" + struct.pack("<I", 8 + len(padded)) + padded
        + struct.pack("<H", len(tags)) + entries + bytes(4)
    )  # fmt: skip


def pgm(values: np.ndarray, highest: int, plain: bool = False) -> bytes:
    """A portable graymap whose highest value is not a power of two."""
    head = f"P{2 if plain else 5}\n{values.shape[1]} {values.shape[0]}\n{highest}\n".encode()
    if plain:
        return head + "\n".join(" ".join(map(str, row)) for row in values.tolist()).encode() + b"\n"
    return head + values.astype(">u2" if highest > 255 else "u1").tobytes()
