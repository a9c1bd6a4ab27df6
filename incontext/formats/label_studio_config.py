"""Labelling configuration of Label Studio: labels with their ids and colors, images to label."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from incontext.errors import InputError
from incontext.files import read_xml
from incontext.formats.annotated_image import alphabetical_ids, number_names, parse_hex_color
from incontext.formats.output import GENERATOR
from incontext.labels.color_mask import Rgb

FROM, TO = "label", "image"  # names in our own configurations


def config_path(tasks: Path) -> Path:
    """Return where the labelling configuration of a file of tasks is: NAME.config.xml beside it."""
    return tasks.with_suffix(".config.xml")


def labelling_config(names: Mapping[int, str], colors: Mapping[int, Rgb]) -> str:
    """Return the labelling configuration for images with these classes.

    `category` is the id, which Label Studio takes over into what it exports as COCO.
    """
    from xml.sax.saxutils import quoteattr

    labels = "".join(
        f'    <Label value={quoteattr(names[i])} category="{i}"'
        + (' background="#{:02x}{:02x}{:02x}"'.format(*colors[i]) if i in colors else "")
        + "/>\n"
        for i in sorted(names)
    )
    return (
        f'<!-- {GENERATOR} -->\n<View>\n  <Image name="{TO}" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="{FROM}" toName="{TO}">\n{labels}  </BrushLabels>\n</View>\n'
    )


@dataclass(frozen=True)
class LabellingConfig:
    """A labelling configuration: ids by name, colors by id, and the images to label.

    `images` holds the key of each in a task's data, by the name that regions call it (`to_name`).
    """

    ids: dict[str, int]
    colors: dict[int, Rgb] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, used_names: set[str]) -> "LabellingConfig":
        """Read a configuration; without one ids follow the alphabet, with a warning.

        Args:
            used_names: names of labels that regions have.

        Raises:
            InputError: not XML, a label that is used and not in it, ids that are not clear.
        """
        if not path.is_file():
            ids = alphabetical_ids(used_names)
            text = ", ".join(f"{index} {name}" for name, index in ids.items())
            warnings.warn(
                f"no {path.name} beside the tasks, so ids follow the alphabet: {text}; put the "
                "labelling configuration there to have its order",
                stacklevel=2,
            )
            return cls(ids)
        root = read_xml(path)
        labels = [label for label in root.iter("Label") if label.get("value")]
        rows = [(label.get("value", ""), label.get("category")) for label in labels]
        ids = number_names(rows, str(path))
        undefined = sorted(used_names - ids.keys())
        if undefined:
            raise InputError(f"{path}: label {undefined[0]!r} is used, but is not in it")
        colors = {
            ids[label.get("value", "")]: rgb
            for label in labels
            if (rgb := parse_hex_color(label.get("background", "")))
        }
        tools = (tag for tag in root.iter() if str(tag.tag).lower().endswith("labels"))
        targets = {name for tag in tools for name in tag.get("toName", "").split(",")}
        images = {
            tag.get("name", ""): tag.get("value", "").removeprefix("$")
            for tag in root.iter("Image")
            if tag.get("name") in targets
        }
        return cls(ids, colors, images)
