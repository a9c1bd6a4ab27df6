"""Pascal VOC: SegmentationClass/NAME.png as palette PNG, and labelmap.txt."""

from collections.abc import Iterable
from pathlib import Path

from incontext.formats.labelled import Labelled
from incontext.segmentation import label_image, write_image, write_text

HEAD = "# label:color_rgb:parts:actions"


def write(results: Iterable[Labelled], out: Path) -> Path:
    """Ids are what they are (16-bit for ids over 255); colors are those of the results.

    Raises:
        OSError: it cannot be written.
    """
    names: dict[int, str] = {0: "background"}
    colors = {0: (0, 0, 0)}
    for one in results:
        names |= one.names
        colors |= one.colors
        path = out / "SegmentationClass" / f"{one.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(label_image(one.labels, one.colors, max(one.names, default=0) > 255), path)
    lines = [HEAD, *(f"{names[i]}:{','.join(map(str, colors[i]))}::" for i in sorted(names))]
    out.mkdir(parents=True, exist_ok=True)
    return write_text(out / "labelmap.txt", "".join(f"{line}\n" for line in lines))
