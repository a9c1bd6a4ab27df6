"""YOLO segmentation: labels/NAME.txt with a polygon a line, and data.yaml with the classes."""

import json
from collections.abc import Iterable
from pathlib import Path

from incontext.formats.labelled import Labelled
from incontext.formats.outline import polygons
from incontext.segmentation import write_text


def write(results: Iterable[Labelled], out: Path) -> Path:
    """One line for each part of an object: its class, then corners in shares of width and height.

    Classes are 0, 1 … in the order of the ids. Pictures without an object get an empty file. The
    pictures are listed in data.yaml's `train`, by path, and stay where they are.

    Raises:
        InputError: SciPy is missing.
        OSError: it cannot be written.
    """
    names: dict[int, str] = {}
    sources = []
    for one in results:
        names |= one.names
        order = {index: number for number, index in enumerate(sorted(one.names))}
        height, width = one.labels.shape
        lines = []
        for index in sorted(one.names):
            for ring in polygons(one.labels == index):
                shares = " ".join(f"{x / width:.6f} {y / height:.6f}" for x, y in ring.tolist())
                lines.append(f"{order[index]} {shares}")
        path = out / "labels" / f"{one.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(f"{line}\n" for line in lines))
        sources.append(str(one.source))
    listed = [f"  {number}: {json.dumps(names[i])}" for number, i in enumerate(sorted(names))]
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "pictures.txt", "".join(f"{source}\n" for source in sources))
    text = "\n".join(["train: pictures.txt", "val: pictures.txt", "names:", *listed])
    return write_text(out / "data.yaml", f"{text}\n")
