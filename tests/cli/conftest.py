"""The command that most tests of the command line run."""

import pytest

from tests.cli.helpers import mask, photo


@pytest.fixture
def segment(incontext, tiny_checkpoint, tmp_path):
    """`segment` with an example, into tmp_path/out; later arguments win."""
    image, labels = photo(tmp_path / "example.png"), mask(tmp_path / "labels.png")

    def run(*args: object, example: tuple[object, object] = (image, labels), out: str = "out"):
        return incontext(
            "segment", "--checkpoint", tiny_checkpoint, "--example", *example,
            "--out", tmp_path / out, *args,
        )  # fmt: skip

    return run
