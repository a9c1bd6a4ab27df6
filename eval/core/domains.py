"""What checkpoints were trained on, so that every row says whether it is a fair test."""

from incontext.errors import InputError

# Where the images of a dataset come from.
IMAGE_SOURCES = ("ADE20K", "COCO", "DAVIS", "FSS-1000", "ISIC", "MOSE", "VOC", "YouTube-VOS",
                 "folder", "fundus", "iSAID")  # fmt: skip

USER_FOLDER = "folder"  # images of the user's own: no checkpoint is known not to have seen them

# Sources that a checkpoint was trained on, with a note on how much of their labels it saw.
TRAINING_SOURCES: dict[str, dict[str, str]] = {
    "incontext-votes": {
        "VOC": "VOC pictures of 12 animal classes",
        "COCO": "254 COCO pictures of 53 classes",
    },
    "incontext-small": {
        "VOC": "VOC pictures of 12 animal classes",
        "COCO": "200 COCO pictures of 53 classes",
    },
    "BAAI/SegGPT": {
        "VOC": "VOC", "COCO": "COCO", "ADE20K": "ADE20K", "fundus": "DRIVE, CHASE, HRF, STARE",
        "iSAID": "iSAID",
    },
}  # fmt: skip
TRAINING_SOURCES["BAAI/seggpt-vit-large"] = TRAINING_SOURCES["BAAI/SegGPT"]


def parse_sources(text: str) -> list[str]:
    """Parse `--trained-on`: names of `IMAGE_SOURCES` with commas, in any case.

    Raises:
        InputError: an unknown name.
    """
    by_lower = {name.lower(): name for name in IMAGE_SOURCES}
    names = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in names if name.lower() not in by_lower]
    if unknown:
        raise InputError(
            f"--trained-on {unknown[0]!r}; accepted: {', '.join(IMAGE_SOURCES)}, or none"
        )
    return [by_lower[name.lower()] for name in names]


def domain(checkpoint: str, image_source: str, trained_on: str = "") -> str:
    """Return "strict" if the checkpoint never saw images of that source, else what it saw of them.

    Args:
        trained_on: what the caller knows of the checkpoint in addition to `TRAINING_SOURCES`:
            names of `IMAGE_SOURCES` with commas, or "none".
    """
    sources = dict(TRAINING_SOURCES.get(checkpoint, {}))
    if trained_on != "none":
        sources = {**{name: name for name in parse_sources(trained_on)}, **sources}
    if image_source in sources:
        return f"in-domain: {sources[image_source]}"
    in_table = checkpoint in TRAINING_SOURCES and image_source != USER_FOLDER
    return "strict" if trained_on or in_table else "unknown (--trained-on)"
