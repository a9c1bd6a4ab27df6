"""What checkpoints were trained on, so that every row says whether it is a fair test."""

# Whose pictures, and with how much of their labels.
TRAINED: dict[str, dict[str, str]] = {
    "incontext-small": {
        "VOC": "VOC pictures of 12 animal classes",
        "COCO": "200 COCO pictures of 53 classes",
    },
    "BAAI/SegGPT": {
        "VOC": "VOC", "COCO": "COCO", "ADE20K": "ADE20K", "fundus": "DRIVE, CHASE, HRF, STARE",
        "iSAID": "iSAID", "PACO": "PACO",
    },
}  # fmt: skip
TRAINED["BAAI/seggpt-vit-large"] = TRAINED["BAAI/SegGPT"]


def domain(checkpoint: str, pictures: str, said: str = "") -> str:
    """ "strict" where a checkpoint saw none of a dataset's pictures, else what it saw of them.

    `said`: what the caller knows of a checkpoint that is not listed, dataset names with commas.
    """
    if said:
        names = [name.strip() for name in said.split(",")]
        return f"in-domain: {pictures}" if pictures in names else "strict"
    if checkpoint not in TRAINED:
        return "unknown (--trained-on)"
    seen = TRAINED[checkpoint].get(pictures)
    return f"in-domain: {seen}" if seen else "strict"
