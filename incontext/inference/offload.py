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

    Chunks are read and written whole, so that only the one in use is in memory. The folder is
    removed with its last user.

    Args:
        folder: where the temporary folder is made; None: the system's.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = folder
        self.temporary_folder = tempfile.TemporaryDirectory(prefix="incontext-", dir=folder)
        self.specs: list[tuple[torch.Size, torch.dtype, torch.device]] = []

    def __len__(self) -> int:
        return len(self.specs)

    def _path(self, index: int) -> Path:
        return Path(self.temporary_folder.name) / str(index)

    def __getitem__(self, index: int) -> Tensor:
        shape, dtype, device = self.specs[index]
        raw = torch.from_numpy(np.fromfile(self._path(index), np.uint8))
        return raw.view(dtype).view(shape).to(device)

    def __setitem__(self, index: int, chunk: Tensor) -> None:
        raw: Any = chunk.detach().contiguous().cpu().flatten().view(torch.uint8).numpy()
        raw.tofile(self._path(index))
        self.specs[index] = (chunk.shape, chunk.dtype, chunk.device)

    def append(self, chunk: Tensor) -> None:
        """Add a chunk."""
        self.specs.append((chunk.shape, chunk.dtype, chunk.device))
        self[len(self) - 1] = chunk

    def shapes(self) -> list[torch.Size]:
        """Return the shapes of all chunks."""
        return [shape for shape, _, _ in self.specs]

    @property
    def nbytes(self) -> int:
        """Size of all chunks."""
        return sum(shape.numel() * dtype.itemsize for shape, dtype, _ in self.specs)

    def __reduce__(self) -> Any:
        """Pickle the chunks as chunks in memory, for another process."""
        return MemoryChunks, (list(iter_chunks(self)),)

    def empty(self) -> "DiskChunks":
        """Return chunks of the same kind, none yet."""
        return DiskChunks(self.folder)
