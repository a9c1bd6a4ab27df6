"""Odd, damaged and huge pictures through `incontext segment`."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.helpers import SIZE, photo, results


def odd_pictures(folder: Path) -> dict[str, tuple[int, int]]:
    """Writes pictures of every kind; name → upright (width, height)."""
    folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (6, 9, 4), dtype=np.uint8)
    rgb = Image.fromarray(noise[..., :3])
    sizes = {}

    def add(name: str, image: Image.Image, size: tuple[int, int] = (9, 6), **options: object):
        image.save(folder / name, **options)
        sizes[Path(name).stem] = size

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        upright = (9, 6) if orientation < 5 else (6, 9)
        add(f"turned{orientation}.jpg", rgb, upright, exif=exif)
    add("alpha.png", Image.fromarray(noise))
    add("gray.png", rgb.convert("L"))
    add("gray-alpha.png", rgb.convert("LA"))
    add("bits.png", rgb.convert("1"))
    add("deep.png", Image.fromarray(noise[..., 0].astype(np.uint16) * 200))
    add("ink.jpg", rgb.convert("CMYK"))
    add("palette.png", rgb.quantize(8), transparency=0)
    add("film.gif", rgb, save_all=True, append_images=[rgb.rotate(180)])
    add("pages.tif", rgb, save_all=True, append_images=[rgb.rotate(180)])
    add("dot.png", rgb.crop((0, 0, 1, 1)), (1, 1))
    add("thin.png", Image.new("RGB", (1, 2000)), (1, 2000))
    add("flat.bmp", Image.new("RGB", (2000, 1)), (2000, 1))
    add("lossy.webp", rgb)
    add("old.ppm", rgb)
    return sizes


BAD = {
    "cut.png": "damaged picture", "text.png": "not a picture", "page.png": "not a picture",
    "logo.png": "not a picture", "empty.jpg": "an empty file", "bomb.png": "200 megapixels",
}  # fmt: skip


def bad_pictures(folder: Path) -> None:
    data = photo(folder / "cut.png", (60, 60)).read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    (folder / "text.png").write_text("hello")
    (folder / "page.png").write_text("<!DOCTYPE html><html></html>")
    (folder / "logo.png").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (folder / "empty.jpg").write_bytes(b"")
    Image.new("1", (8, 8)).save(folder / "bomb.png")
    data = bytearray((folder / "bomb.png").read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    # the check sum of the header, which Pillow compares
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(data)


@pytest.mark.parametrize("tile", [None, 16])
def test_odd_pictures(segment, tmp_path, tile):
    sizes = odd_pictures(tmp_path / "in")
    options = [] if tile is None else ["--tile", tile, "--batch-size", 3]
    answer = segment(tmp_path / "in", *options)
    assert answer.code == 0, answer.err
    content = results(tmp_path / "out")
    assert {name: tuple(r["size"]) for name, r in content["results"].items()} == sizes
    for name, size in sizes.items():
        for suffix in (".png", ".confidence.png", ".overlay.jpg"):
            assert Image.open(tmp_path / "out" / (name + suffix)).size == size
    for name in ("film", "pages"):
        assert f"note on {name}: " in answer.out
        assert "the first one is used" in content["results"][name]["notes"][0]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_bad_ones_are_reported(segment, tmp_path, batch_size):
    bad_pictures(tmp_path / "in")
    photo(tmp_path / "in/a.png")
    photo(tmp_path / "in/z.png")
    answer = segment(tmp_path / "in", "--batch-size", batch_size)
    assert answer.code == 1
    assert f"{len(BAD)} of {len(BAD) + 2} pictures failed" in answer.err
    content = results(tmp_path / "out")
    assert sorted(content["results"]) == ["a", "z"]
    assert len(content["failed"]) == len(BAD)
    for name, message in BAD.items():
        assert message in content["failed"][str(tmp_path / "in" / name)]
        assert f"failed: {tmp_path / 'in' / name}: " in answer.err


@pytest.mark.parametrize("name", BAD)
def test_bad_example(segment, tmp_path, name):
    bad_pictures(tmp_path / "in")
    bad, good = tmp_path / "in" / name, tmp_path / "example.png"
    for example in ((bad, tmp_path / "labels.png"), (good, bad)):
        answer = segment(good, example=example)
        assert answer.code == 2
        assert BAD[name] in answer.err
        assert len(answer.err.splitlines()) == 1


@pytest.mark.slow
def test_huge(segment, tmp_path):
    """More pixels than Pillow takes without a warning."""
    Image.new("RGB", (10_000, 9_000), (90, 120, 60)).save(tmp_path / "huge.png")
    answer = segment(tmp_path / "huge.png")
    assert answer.code == 0, answer.err
    assert "Warning" not in answer.err
    assert results(tmp_path / "out")["results"]["huge"]["size"] == [10_000, 9_000]
    assert Image.open(tmp_path / "out/huge.png").size == (10_000, 9_000)
    for path in (tmp_path / "out").iterdir():
        path.unlink()  # large; the temporary folders of a few runs are kept


def test_animated_example_warns(segment, tmp_path):
    frames = [Image.new("RGB", SIZE, color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "e.gif", save_all=True, append_images=frames[1:])
    answer = segment(tmp_path / "e.gif", example=(tmp_path / "e.gif", tmp_path / "labels.png"))
    assert answer.code == 0
    assert f"Warning: {tmp_path / 'e.gif'}: 2 frames; the first one is used\n" in answer.err
