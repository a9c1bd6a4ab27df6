"""Label Studio: tasks with predictions, masks as brush RLE."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from incontext.formats.labelled import Labelled
from incontext.segmentation import write_text

SIZES = (3, 4, 8, 16)  # bits that lengths of runs may have
FROM, TO = "label", "image"  # names in the labelling configuration


def write(results: Iterable[Labelled], out: Path) -> Path:
    """A JSON file to import, with one prediction a picture; its masks are `brushlabels`.

    The labelling configuration that it fits is written beside it, as NAME.config.xml.

    Raises:
        OSError: it cannot be written.
    """
    tasks, names = list[Any](), dict[int, str]()
    for one in results:
        names |= one.names
        height, width = one.labels.shape
        found = [
            {
                "id": f"{one.name}-{index}", "type": "brushlabels", "from_name": FROM,
                "to_name": TO, "original_width": width, "original_height": height,
                "image_rotation": 0, "score": one.presence[index],
                "value": {
                    "format": "rle", "rle": encode(one.labels == index),
                    "brushlabels": [one.names[index]],
                },
            }
            for index in one.presence
            if (one.labels == index).any()
        ]  # fmt: skip
        score = max((one.presence[i] for i in one.presence), default=0.0)
        tasks.append({
            "data": {"image": str(one.source)},
            "predictions": [{"model_version": "incontext", "score": score, "result": found}],
        })  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out.with_suffix(".config.xml"), config(names[i] for i in sorted(names)))
    return write_text(out, json.dumps(tasks))


def config(names: Iterable[str]) -> str:
    """The labelling configuration for pictures with these classes."""
    from xml.sax.saxutils import quoteattr

    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in names)
    return (
        f'<View>\n  <Image name="{TO}" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="{FROM}" toName="{TO}">\n{labels}  </BrushLabels>\n</View>\n'
    )


def encode(mask: "np.ndarray[Any, np.dtype[np.bool_]]") -> list[int]:
    """(H, W) bool → bytes of the brush format: runs of RGBA values, 0 or 255.

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
            which = next(i for i, size in enumerate(SIZES) if length < 1 << size)
            value = 255 if flat[start] else 0
            bits.append(f"1{which:02b}{length:0{SIZES[which]}b}{value:08b}")
            start += length + 1
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode(packed: list[int], shape: tuple[int, int]) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """What `encode`, or Label Studio, wrote → (H, W) bool; `shape` is (height, width)."""
    text, at = "".join(f"{byte:08b}" for byte in packed), 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(text[at - count : at], 2)

    total, word = read(32), read(5) + 1
    sizes, values = [read(4) + 1 for _ in range(4)], list[int]()
    while len(values) < total:
        same, length = read(1), read(sizes[read(2)]) + 1
        values += [read(word)] * length if same else [read(word) for _ in range(length)]
    return np.array(values, np.uint8).reshape(*shape, 4)[..., 3] > 127
