"""Array prompt: what a prompt graph keeps of its examples, as numpy arrays.

Letters: N examples, T cells kept of an example, k cells kept of a view.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from incontext.inference.onnx.cell_selection import CellSelection

if TYPE_CHECKING:
    import torch

    from incontext.model.encoded_prompt import EncodedPrompt

Arrays = dict[str, np.ndarray[Any, Any]]
# Of each array that holds cells, by name: the stride of its cells and the axis along which they
# lie, as the graphs' description says it.
CellAxes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class ArrayPrompt:
    """An `EncodedPrompt` without torch.

    Attributes:
        count: number of examples.
        size: height and width of the pictures.
        arrays: by the names of `EncodedPrompt.tensors`.
    """

    count: int
    size: tuple[int, int]
    arrays: Arrays = field(repr=False)

    device = None  # where tensors would be

    @classmethod
    def parse(cls, arrays: Arrays, count: int, size: Sequence[int]) -> "ArrayPrompt":
        """Rebuild a prompt from what a file contains, unchecked."""
        return cls(count, (size[0], size[1]), arrays)

    @classmethod
    def from_encoded(cls, prompt: "EncodedPrompt | ArrayPrompt") -> "ArrayPrompt":
        """Return a prompt of tensors as arrays."""
        if isinstance(prompt, ArrayPrompt):
            return prompt
        tensors = {name: x.detach().cpu() for name, x in prompt.tensors().items()}
        # numpy has no bfloat16.
        arrays = {
            n: (x if x.dtype.itemsize == 1 else x.float()).numpy() for n, x in tensors.items()
        }
        return cls(prompt.count, prompt.size, arrays)

    def tensors(self) -> Arrays:
        """Return the arrays, by the names that prompt files use."""
        return self.arrays

    @property
    def nbytes(self) -> int:
        """Size of all arrays but kind and colors."""
        small = ("semantic", "colors")
        return sum(x.nbytes for name, x in self.arrays.items() if name not in small)

    def to(self, device: "torch.device") -> "EncodedPrompt":
        """Return the prompt as tensors on a device."""
        import torch

        from incontext.model.encoded_prompt import EncodedPrompt

        tensors = {name: torch.from_numpy(x).to(device) for name, x in self.arrays.items()}
        return EncodedPrompt.parse(tensors, self.count, self.size)

    def flatten(self, axes: CellAxes) -> Arrays:
        """Return arrays of float32 with all cells as those of one example, as query graphs have."""
        arrays = {}
        for name, x in self.arrays.items():
            arrays[name] = x if x.dtype == bool else x.astype(np.float32)
            if name in axes:
                _, axis = axes[name]
                rows = np.moveaxis(arrays[name][0], axis - 1, 1)  # (N, T, …)
                arrays[name] = _restore(rows.reshape(1, -1, *rows.shape[2:]), axis)
        return arrays


def group_cells(
    arrays: Arrays, axes: CellAxes, selections: Mapping[int, CellSelection], views: int
) -> Arrays:
    """Keep the selected cells of every view, and make all views of an example one.

    Args:
        arrays: of all cells of V views, in one row, as prompt graphs return them.
        selections: by stride, of the views.
        views: number of an example's views.

    Returns:
        The arrays of V / views examples with k · views cells each.
    """
    result = {}
    for name, x in arrays.items():
        if name not in axes:
            result[name] = x
            continue
        stride, axis = axes[name]
        indices, weight = selections[stride]
        rows = np.moveaxis(x[0, 0], axis - 2, 0)
        rows = rows.reshape(len(indices), -1, *rows.shape[1:])  # (V, T, …)
        if name.partition(".")[2].startswith("weight"):
            rows = weight
        else:
            rows = np.stack([view[kept] for view, kept in zip(rows, indices, strict=True)])
        rows = rows.reshape(-1, views * rows.shape[1], *rows.shape[2:])
        result[name] = _restore(rows, axis)
    return result


def _restore(rows: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
    """(N, T, …) → (1, N, …, T at `axis`, …)."""
    return np.ascontiguousarray(np.moveaxis(rows, 1, axis - 1)[None])
