"""Ids of several examples together: aligned, checked, with colors and names, shared into passes."""

import warnings
from collections.abc import Iterable, Mapping, Sequence

from incontext.errors import InputError
from incontext.inference.example import Example
from incontext.labels.color_mask import MAX_ID, Rgb, check_colors
from incontext.labels.coloring import PALETTE, Coloring
from incontext.labels.encodings import Labels, match_colors

# Ids painted in one pass. Measured on CamVid's 11 classes, see the model card.
CLASSES_PER_PASS = 4
# Ids of one mask from which they are likely to number objects, if another mask has id 1 alone.
NUMBERED_OBJECTS = 5


def align_examples(examples: Example | Sequence[Example], crop: bool = False) -> list[Example]:
    """Return examples with labels under the same ids, cropped around them if `crop`.

    Raises: see `align_labels`.
    """
    examples = [examples] if isinstance(examples, Example) else list(examples)
    aligned_examples = [
        Example.from_labels(example.image, labels, example.names, example.source)
        for example, labels in zip(examples, align_labels(examples), strict=True)
    ]
    return [e.cropped() for e in aligned_examples] if crop else aligned_examples


def align_labels(examples: Sequence[Example]) -> list[Labels]:
    """Return the labels of all examples under the same ids.

    Raises:
        InputError: no examples, or none that shows an id.
    """
    if not examples:
        raise InputError("a prompt needs one example or more")
    wrong = next((e for e in examples if not isinstance(e, Example)), None)
    if wrong is not None:
        kind = type(wrong).__name__
        raise InputError(f"{kind} among the examples; accepted: Example(image, labels)")
    label_maps = match_colors([e.labels for e in examples])
    check_palettes(label_maps)
    if not any(m.present for m in label_maps):
        raise InputError("no example shows an object: their labels are all background or ignored")
    _warn_of_numbered_objects(examples, label_maps)
    return label_maps


def _warn_of_numbered_objects(examples: Sequence[Example], label_maps: Sequence[Labels]) -> None:
    """Warn if one mask seems to number single objects while another shows them all as id 1.

    Ids with names are classes.
    """
    if any(example.names for example in examples):
        return
    counts = [len(labels.present) for labels in label_maps]
    single = next((n for n, labels in enumerate(label_maps) if labels.present == [1]), None)
    numbered = counts.index(max(counts))
    if single is None or counts[numbered] < NUMBERED_OBJECTS:
        return
    names = [
        f"example {n} ({e.source})" if e.source else f"example {n}"
        for n, e in enumerate(examples, 1)
    ]
    warnings.warn(
        f"{names[numbered]} has {counts[numbered]} ids, {names[single]} only id 1. Each id is "
        "looked for by itself; if these are the numbers of single objects, threshold=1 "
        "(--threshold 1) makes them one id",
        stacklevel=4,
    )


def check_palettes(label_maps: Sequence[Labels]) -> None:
    """Raise InputError if an id has one color in one palette and another color in another."""
    colors: dict[int, Rgb] = {}
    for labels in label_maps:
        for index in labels.present:
            rgb = labels.colors.get(index)
            if rgb is not None and colors.setdefault(index, rgb) != rgb:
                raise InputError(
                    f"id {index} is {colors[index]} in the palette of one example and {rgb} in "
                    "another's: the same id must mean the same thing; give both one palette"
                )


def assign_colorings(
    ids: Sequence[int], per_pass: int, colors: Mapping[int, Rgb] | None
) -> list[Coloring]:
    """Return colorings that share the ids evenly, at most `per_pass` to each.

    Args:
        colors: the caller's own coloring, in one pass; must name every id.

    Raises:
        InputError: `per_pass` below 1, or `colors` that lack an id.
    """
    if colors is not None:
        table = check_colors(dict(colors))
        missing = [i for i in ids if i not in table]
        if missing:
            raise InputError(f"coloring lacks a color for id {missing[0]}")
        return [Coloring(tuple(ids), tuple(table[i] for i in ids))]
    if not 1 <= per_pass <= len(PALETTE):
        raise InputError(f"classes_per_pass is {per_pass}; accepted: 1 … {len(PALETTE)}")
    count = -(-len(ids) // per_pass)
    return [Coloring.from_palette(ids[start::count]) for start in range(count)]


def display_colors(label_maps: Sequence[Labels], ids: Sequence[int]) -> dict[int, Rgb]:
    """Return a color for people for every id: the source's own, else one of the palette."""
    source_colors = {index: rgb for m in label_maps for index, rgb in m.colors.items()}
    fallback = {index: PALETTE.color(order + 1) for order, index in enumerate(ids)}
    return {i: source_colors.get(i, fallback[i]) for i in ids}


def collect_names(examples: Iterable[tuple[Iterable[int], Mapping[int, str]]]) -> dict[int, str]:
    """Return the names of all examples together.

    Args:
        examples: of each the ids that it shows and the names that it brings along.

    Raises:
        InputError: an id that has one name in one example and another name in another.
    """
    names: dict[int, str] = {}
    for present, example_names in examples:
        for index in present:
            name = example_names.get(index)
            if name is not None and names.setdefault(index, name) != name:
                raise InputError(
                    f"id {index} is {names[index]!r} in one example and {name!r} in another: the "
                    "same id must mean the same thing"
                )
    return names


def check_names(names: Mapping[int, str] | None, ids: Sequence[int]) -> dict[int, str]:
    """Return a name for every id, its number as text if `names` has none.

    Raises:
        InputError: a name for an id that no example shows.
    """
    names = names or {}
    unknown = [i for i in names if i not in ids]
    if unknown:
        raise InputError(f"a name for id {unknown[0]}, which no example shows (0 … {MAX_ID})")
    return {i: names.get(i, str(i)) for i in ids}
