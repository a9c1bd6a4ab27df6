"""Parts in files behave as parts in memory."""

import gc
import pickle
from pathlib import Path

import pytest
import torch

from incontext.inference.offload import DiskChunks
from incontext.model.chunks import MemoryChunks, gather_examples, iter_chunks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_parts_come_back(tmp_path, dtype):
    parts, kept = DiskChunks(tmp_path), MemoryChunks()
    for n in range(3):
        part = torch.randn(2, n + 1, 4, 5).to(dtype).transpose(2, 3)
        parts.append(part)
        kept.append(part)
    parts[1] = kept[1] = torch.randn(1, 7).to(dtype)
    assert len(parts) == 3
    for one, other in zip(iter_chunks(parts), kept, strict=True):
        assert torch.equal(one, other)
        assert one.dtype == dtype
    assert len(list(tmp_path.rglob("*"))) == 4  # its folder, and a file a part
    assert isinstance(pickle.loads(pickle.dumps(parts)), MemoryChunks)
    assert len(parts.empty()) == 0


def test_files_go_with_their_user(tmp_path):
    parts = DiskChunks(tmp_path)
    parts.append(torch.ones(3))
    folder = Path(parts.temporary_folder.name)
    assert folder.is_dir()
    del parts
    gc.collect()
    assert not folder.exists()


def test_sizes_are_known_without_reading(tmp_path):
    parts = DiskChunks(tmp_path)
    for n in range(3):
        parts.append(torch.ones(1, n + 1, 4))
    for path in Path(parts.temporary_folder.name).iterdir():
        path.unlink()
    assert [shape[1] for shape in parts.shapes()] == [1, 2, 3]
    assert parts.nbytes == 4 * 6 * 4


def test_picked_examples_are_read_once(tmp_path, monkeypatch):
    parts, everything = DiskChunks(tmp_path), torch.randn(1, 9, 4)
    for part in everything.split([2, 3, 4], 1):
        parts.append(part)
    read = []
    get = DiskChunks.__getitem__
    monkeypatch.setattr(DiskChunks, "__getitem__", lambda s, i: read.append(i) or get(s, i))
    numbers = torch.tensor([8, 1, 8, 0, 5])
    assert torch.equal(gather_examples(parts, numbers), everything[0, numbers][:, None])
    assert sorted(read) == [0, 2]
