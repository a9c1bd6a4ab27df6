"""Chunks on disk: any number of examples in the memory of one chunk."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from incontext.model.chunks import MemoryChunks, iter_chunks


class DiskChunks:
    """Tensor chunks, each in a file of its own in a temporary folder: see `model.chunks`.

    Read and written whole, so that only the part in use is in memory; the folder goes with the
    last user.

    Args:
        folder: where the temporary folder is made; None: the system's.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = folder
        self.space = tempfile.TemporaryDirectory(prefix="incontext-", dir=folder)
        self.about: list[tuple[torch.Size, torch.dtype, torch.device]] = []

    def __len__(self) -> int:
        return len(self.about)

    def _path(self, index: int) -> Path:
        return Path(self.space.name) / str(index)

    def __getitem__(self, index: int) -> Tensor:
        shape, dtype, device = self.about[index]
        raw = torch.from_numpy(np.fromfile(self._path(index), np.uint8))
        return raw.view(dtype).view(shape).to(device)

    def __setitem__(self, index: int, part: Tensor) -> None:
        raw: Any = part.detach().contiguous().cpu().flatten().view(torch.uint8).numpy()
        raw.tofile(self._path(index))
        self.about[index] = (part.shape, part.dtype, part.device)

    def append(self, part: Tensor) -> None:
        """One more part."""
        self.about.append((part.shape, part.dtype, part.device))
        self[len(self) - 1] = part

    def shapes(self) -> list[torch.Size]:
        """Of all parts."""
        return [shape for shape, _, _ in self.about]

    @property
    def nbytes(self) -> int:
        """Size of all parts."""
        return sum(shape.numel() * dtype.itemsize for shape, dtype, _ in self.about)

    def __reduce__(self) -> Any:
        """Pickled, as for another process, they are in memory."""
        return MemoryChunks, (list(iter_chunks(self)),)

    def empty(self) -> "DiskChunks":
        """A new one without parts."""
        return DiskChunks(self.folder)
