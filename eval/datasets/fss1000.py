"""FSS-1000 (Li et al. 2020), episodes of HSNet: each picture of the 240 test classes is a query."""

from pathlib import Path

from eval.core.protocol import Episode, FewShot, HSNetSampler, Item, mask_item, require
from incontext.errors import InputError

PICTURES = 10  # of a class
FIRST_TEST_CLASS = 760


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """List HSNet's episodes of the classes in splits/fss/test.txt or splits/test.txt."""
    root = require(folder / "FSS-1000")
    lists = (folder / "splits/fss/test.txt", root / "splits/test.txt")
    test_list = next((path for path in lists if path.is_file()), lists[0])
    names = sorted(require(test_list).read_text(encoding="utf-8").split())
    data = root / "data" if (root / "data").is_dir() else root
    sampler, drawn_episodes = HSNetSampler(), []
    for number, name in enumerate(names):
        queries = sorted(require(data / name).glob("*.jpg"), key=str)
        if len(queries) != PICTURES:
            raise InputError(f"{data / name}: {len(queries)} pictures; FSS-1000 has {PICTURES}")
        for query in queries:
            numbers = sampler.draw_examples(range(1, PICTURES + 1), int(query.stem), shots)
            items = tuple(_item(data / name / f"{i}.jpg") for i in numbers)
            drawn_episodes.append(Episode(FIRST_TEST_CLASS + number, items, _item(query)))
    return drawn_episodes


def _item(image: Path) -> Item:
    return mask_item(image, image.with_suffix(".png"))


PROTOCOL = FewShot(
    "fss-1000", "FSS-1000", 1,
    "FSS-1000/CLASS/{1…10}.{jpg,png} (or FSS-1000/data/CLASS/…) and splits/fss/test.txt (HSNet's)",
    "FSS-1000", episodes,
    (("SegGPT", "85.6 / 89.3"), ("Painter", "61.7 / 62.3"), ("HSNet", "86.5 / 88.5"),
     ("VAT", "90.3 / 90.8"), ("Matcher", "87.0 / 89.6"), ("SANSA", "91.4 / 92.1"),
     ("INSID3", "83.7 / –")),
)  # fmt: skip
