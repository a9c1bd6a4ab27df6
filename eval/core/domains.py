"""What checkpoints were trained on, so that every row says whether it is a fair test."""

from incontext.errors import InputError

# Whose pictures a dataset can have.
PICTURES = ("ADE20K", "COCO", "DAVIS", "FSS-1000", "ISIC", "MOSE", "VOC", "YouTube-VOS", "folder",
            "fundus", "iSAID")  # fmt: skip

OWN = "folder"  # whose pictures these are nobody knows here

# Whose pictures were seen, with how much of their labels.
TRAINED: dict[str, dict[str, str]] = {
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
TRAINED["BAAI/seggpt-vit-large"] = TRAINED["BAAI/SegGPT"]


def said_of(text: str) -> list[str]:
    """Names out of `--trained-on`.

    Raises:
        InputError: one that is not known.
    """
    by_lower = {name.lower(): name for name in PICTURES}
    names = [part.strip() for part in text.split(",") if part.strip()]
    strange = [name for name in names if name.lower() not in by_lower]
    if strange:
        raise InputError(f"--trained-on {strange[0]!r}; accepted: {', '.join(PICTURES)}, or none")
    return [by_lower[name.lower()] for name in names]


def domain(checkpoint: str, pictures: str, said: str = "") -> str:
    """ "strict" where a checkpoint saw none of a dataset's pictures, else what it saw of them.

    `said`: what the caller knows of a checkpoint beside the table, names of `PICTURES` with commas;
    "none" says that it saw none of them.
    """
    seen = dict(TRAINED.get(checkpoint, {}))
    if said != "none":
        seen = {**{name: name for name in said_of(said)}, **seen}
    if pictures in seen:
        return f"in-domain: {seen[pictures]}"
    known = checkpoint in TRAINED and pictures != OWN
    return "strict" if said or known else "unknown (--trained-on)"
