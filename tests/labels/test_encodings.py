"""Label encodings: each one to exact ids, and what is ambiguous or malformed refused by name."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from faster_coco_eval import mask as coco
from PIL import Image

from incontext import Example, InputError
from incontext.labels.color_mask import check_colors
from incontext.labels.encodings import UNKNOWN, Labels, match_colors, read_labels

SIZE = (5, 4)  # width, height
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def grid(*values: int, dtype: type = np.int64) -> np.ndarray:
    """4×5 zeros with `values` in the first row, from the left."""
    array = np.zeros(SIZE[::-1], dtype)
    array[0, : len(values)] = values
    return array


def colored(*colors: tuple[int, int, int]) -> np.ndarray:
    """4×5 black with colors in the first row, from the left."""
    array = np.zeros((*SIZE[::-1], 3), np.uint8)
    for column, rgb in enumerate(colors):
        array[0, column] = rgb
    return array


def equal(labels: Labels, *expected: int) -> bool:
    """Whether the first row begins with `expected`, all else being background."""
    assert labels.ids.dtype == np.int32
    assert labels.ids.shape == SIZE[::-1]
    return np.array_equal(labels.ids, grid(*expected))


def stored(folder: Path, image: Image.Image, name: str = "mask.png", **options: object) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


def refused(*wanted: str, source: object, size: tuple[int, int] = SIZE, **options: object) -> None:
    """Reading raises InputError whose text holds all of `wanted`."""
    with pytest.raises(InputError) as caught:
        read_labels(source, size, **options)
    text = str(caught.value)
    assert all(part in text for part in wanted), text
    assert "\n" not in text


class TestBinary:
    def test_bool_array(self):
        assert equal(read_labels(grid(1, 0, 1).astype(bool), SIZE), 1, 0, 1)

    def test_bool_tensor(self):
        assert equal(read_labels(torch.from_numpy(grid(1, 0, 1)).bool(), SIZE), 1, 0, 1)

    def test_mode_1_png(self, tmp_path):
        path = stored(tmp_path, Image.fromarray(grid(0, 1, 1).astype(bool)))
        assert Image.open(path).mode == "1"
        assert equal(read_labels(path, SIZE), 0, 1, 1)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint16, np.uint64])
    @pytest.mark.parametrize("top", [1, 255])
    def test_two_values(self, dtype, top):
        assert equal(read_labels(grid(top, 0, top, dtype=dtype), SIZE), 1, 0, 1)

    @pytest.mark.parametrize("name", ["m.png", "m.bmp", "m.tif", "m.webp", "m.gif", "m.pgm"])
    def test_files(self, tmp_path, name):
        image = Image.fromarray(grid(255, 0, 255, dtype=np.uint8))
        options = {"lossless": True} if name == "m.webp" else {}
        assert equal(read_labels(stored(tmp_path, image, name, **options), SIZE), 1, 0, 1)

    def test_all_255_is_one_object(self):
        labels = read_labels(np.full((4, 5), 255, np.uint8), SIZE)
        assert (labels.ids == 1).all()

    def test_all_background(self):
        labels = read_labels(grid(), SIZE)
        assert equal(labels)
        assert labels.present == []


class TestIds:
    @pytest.mark.parametrize(
        ("dtype", "values"),
        [
            (np.uint8, (1, 2, 254)),
            (np.int8, (1, 127)),
            (np.int16, (3, 32_767)),
            (np.uint16, (3, 65_535)),
            (np.int32, (3, 65_535)),
            (np.uint32, (3, 65_535)),
            (np.int64, (3, 65_535)),
            (np.uint64, (3, 65_535)),
            (np.float16, (1, 2)),
            (np.float32, (1, 2, 300)),
            (np.float64, (1, 65_535)),
            (np.dtype(">u2"), (3, 65_535)),
            (np.dtype(">i4"), (3, 65_535)),
        ],
    )
    def test_dtypes(self, dtype, values):
        labels = read_labels(grid(*values, dtype=dtype), SIZE)
        assert equal(labels, *values)
        assert labels.present == list(values)
        assert labels.colors == {}

    @pytest.mark.parametrize(
        "dtype", [torch.uint8, torch.int32, torch.int64, torch.float32, torch.bfloat16]
    )
    def test_tensors(self, dtype):
        assert equal(read_labels(torch.tensor(grid(1, 7, 3)).to(dtype), SIZE), 1, 7, 3)

    def test_tensor_with_gradient(self):
        tensor = torch.tensor(grid(1, 7), dtype=torch.float32, requires_grad=True)
        assert equal(read_labels(tensor, SIZE), 1, 7)

    @pytest.mark.parametrize("axis", [0, 2])
    def test_one_channel(self, axis):
        assert equal(read_labels(np.expand_dims(grid(1, 7), axis), SIZE), 1, 7)

    def test_strided_views(self):
        wide = np.repeat(grid(1, 7), 2, axis=1)
        assert equal(read_labels(wide[:, ::2], SIZE), 1, 7)

    def test_i16_png(self, tmp_path):
        path = stored(tmp_path, Image.fromarray(grid(1, 300, 65_535, dtype=np.uint16)))
        assert Image.open(path).mode == "I;16"
        assert equal(read_labels(path, SIZE), 1, 300, 65_535)
        assert equal(read_labels(str(path), SIZE), 1, 300, 65_535)
        assert equal(read_labels(Image.open(path), SIZE), 1, 300, 65_535)

    def test_mode_i_and_f_tiff(self, tmp_path):
        whole = stored(tmp_path, Image.fromarray(grid(1, 65_535, dtype=np.int32)), "i.tif")
        assert equal(read_labels(whole, SIZE), 1, 65_535)
        real = stored(tmp_path, Image.fromarray(grid(1, 400, dtype=np.float32)), "f.tif")
        assert equal(read_labels(real, SIZE), 1, 400)

    def test_input_is_not_changed(self):
        array = grid(1, 255, 3)
        read_labels(array, SIZE, ignore=255)
        assert np.array_equal(array, grid(1, 255, 3))

    @pytest.mark.parametrize("value", [65_536, 10**9, 2**62])
    def test_too_large(self, value):
        refused(f"id {value}", "0 … 65535", source=grid(1, value))

    def test_too_large_for_signed_integers(self):
        array = grid(1, dtype=np.uint64)
        array[1, 1] = 2**64 - 1
        refused(f"id {2**64 - 1}", "65535", source=array)
        labels = read_labels(array, SIZE, ignore=2**64 - 1)
        assert labels.ids[1, 1] == UNKNOWN
        assert labels.present == [1]

    def test_negative(self):
        refused("id -3", "ignore=-3", source=grid(1, -3))

    @pytest.mark.parametrize("value", [0.5, 1e-9])
    def test_fractions(self, value):
        refused("not whole numbers", "threshold", source=grid() + value)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, value):
        refused("NaN or infinite", source=grid() + value)
        refused("NaN or infinite", source=grid() + value, threshold=0.5)

    @pytest.mark.parametrize("dtype", [complex, object, "datetime64[s]", "U3", "timedelta64[s]"])
    @pytest.mark.parametrize("threshold", [None, 1])
    def test_other_dtypes(self, dtype, threshold):
        refused("dtype", "bool, integers", source=grid().astype(dtype), threshold=threshold)


class TestIgnore:
    def test_255_beside_ids_is_refused(self):
        for array in (grid(1, 255), grid(7, 255, dtype=np.uint8), grid(1000, 255)):
            refused("255 beside", "ignore=255", "ignore='none'", "threshold=128", source=array)

    def test_255_ignored(self):
        assert equal(read_labels(grid(1, 255), SIZE, ignore=255), 1, UNKNOWN)
        # also where the map would be a binary mask without the option
        assert equal(read_labels(grid(0, 255), SIZE, ignore=255), 0, UNKNOWN)

    def test_255_is_an_id(self):
        assert equal(read_labels(grid(1, 255), SIZE, ignore="none"), 1, 255)
        assert equal(read_labels(grid(0, 255), SIZE, ignore="none"), 0, 255)

    def test_255_is_an_id_beside_another_ignored_value(self):
        assert equal(read_labels(grid(1, 255, -1), SIZE, ignore=-1), 1, 255, UNKNOWN)

    @pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64, np.float32])
    def test_negative(self, dtype):
        assert equal(read_labels(grid(1, -1, dtype=dtype), SIZE, ignore=-1), 1, UNKNOWN)

    def test_values_outside_the_range_may_be_ignored(self):
        assert equal(read_labels(grid(1, 99_999), SIZE, ignore=99_999), 1, UNKNOWN)

    @pytest.mark.parametrize("ignore", [-1, 300])
    def test_value_that_the_dtype_cannot_hold(self, ignore):
        assert equal(read_labels(grid(1, 2, dtype=np.uint8), SIZE, ignore=ignore), 1, 2)

    def test_background_may_be_ignored(self):
        labels = read_labels(grid(1), SIZE, ignore=0)
        assert (labels.ids.ravel()[1:] == UNKNOWN).all()

    def test_numpy_integer(self):
        assert equal(read_labels(grid(1, 255), SIZE, ignore=np.uint8(255)), 1, UNKNOWN)

    @pytest.mark.parametrize("ignore", ["255", "all", 1.5, [255], np.array([1, 2])])
    def test_malformed(self, ignore):
        refused("ignore=", "accepted: an integer, 'none'", source=grid(1), ignore=ignore)

    def test_ignored_pixels_are_not_present(self):
        assert read_labels(grid(1, 255), SIZE, ignore=255).present == [1]


class TestPalette:
    @pytest.fixture
    def palette_file(self, tmp_path):
        def write(*values: int, **options: object) -> Path:
            image = Image.fromarray(grid(*values, dtype=np.uint8))
            image.putpalette([0, 0, 0, *RED, *GREEN, 12, 34, 56])
            assert image.mode == "P"
            return stored(tmp_path, image, **options)

        return write

    def test_palette_is_kept(self, palette_file):
        labels = read_labels(palette_file(1, 3), SIZE)
        assert equal(labels, 1, 3)
        assert labels.colors == {0: (0, 0, 0), 1: RED, 3: (12, 34, 56)}
        assert not labels.discovered

    def test_transparent_index(self, palette_file):
        assert equal(read_labels(palette_file(1, 3, transparency=0), SIZE), 1, 3)

    def test_255_needs_ignore(self, tmp_path):
        image = Image.fromarray(grid(0, 255, dtype=np.uint8))
        image.putpalette([v for i in range(256) for v in (i, 0, 0)])
        path = stored(tmp_path, image)
        refused("255 beside a palette", source=path)
        assert equal(read_labels(path, SIZE, ignore=255), 0, UNKNOWN)
        assert read_labels(path, SIZE, ignore="none").colors[255] == (255, 0, 0)

    def test_gif(self, tmp_path):
        image = Image.fromarray(grid(1, 2, dtype=np.uint8))
        image.putpalette([0, 0, 0, *RED, *GREEN])
        labels = read_labels(stored(tmp_path, image, "mask.gif"), SIZE)
        shown = {labels.colors[i] for i in labels.present}
        assert shown == {RED, GREEN}
        assert (labels.ids == 0).sum() == 18

    def test_grays_that_are_no_indices(self, tmp_path):
        # GIF stores grays 0, 5, 9 as indices 0, 1, 2
        image = Image.fromarray(grid(5, 9, dtype=np.uint8))
        refused("[0, 1, 2]", "[0, 5, 9]", source=stored(tmp_path, image, "mask.gif"))
        inverted = Image.fromarray(grid(1, dtype=np.uint8))
        inverted.putpalette([255, 255, 255, 0, 0, 0])
        refused("[0, 1]", "[255, 0]", source=inverted)

    def test_palettes_that_say_nothing(self):
        for palette in ([v for i in range(256) for v in (i, i, i)], [0] * 768):
            image = Image.fromarray(grid(5, 9, dtype=np.uint8))
            image.putpalette(palette)
            assert equal(read_labels(image, SIZE), 5, 9)


TABLE = {1: RED, 7: GREEN, 300: WHITE}


class TestColors:
    @pytest.mark.parametrize("kind", ["png", "array", "first", "tensor", "pil", "webp"])
    def test_with_a_table(self, tmp_path, kind):
        array = colored(RED, GREEN, WHITE, RED)
        source = {
            "png": lambda: stored(tmp_path, Image.fromarray(array)),
            "webp": lambda: stored(tmp_path, Image.fromarray(array), "m.webp", lossless=True),
            "array": lambda: array,
            "first": lambda: np.moveaxis(array, -1, 0),
            "tensor": lambda: torch.from_numpy(array).permute(2, 0, 1),
            "pil": lambda: Image.fromarray(array),
        }[kind]()
        labels = read_labels(source, SIZE, colors=TABLE)
        assert equal(labels, 1, 7, 300, 1)
        assert labels.colors == TABLE
        assert not labels.discovered

    def test_discovered(self):
        labels = read_labels(colored(WHITE, BLUE, RED, BLUE), SIZE)
        assert equal(labels, 3, 1, 2, 1)  # in ascending (r, g, b)
        assert labels.colors == {1: BLUE, 2: RED, 3: WHITE}
        assert labels.discovered

    def test_white_on_black(self):
        assert equal(read_labels(colored(WHITE), SIZE), 1)

    def test_one_row_and_one_column(self):
        row = colored(RED, GREEN)[:1]
        assert read_labels(row, (5, 1), colors=TABLE).ids.tolist() == [[1, 7, 0, 0, 0]]
        column = np.moveaxis(row, 0, 1)
        assert read_labels(column, (1, 5), colors=TABLE).ids[:, 0].tolist() == [1, 7, 0, 0, 0]

    def test_picture_of_three_by_three(self):
        array = np.zeros((3, 3, 3), np.uint8)
        array[0, 1] = RED  # the last axis holds the channels
        assert read_labels(array, (3, 3)).ids.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]

    def test_black_may_be_an_id(self):
        labels = read_labels(colored(WHITE), SIZE, colors={0: WHITE, 4: (0, 0, 0)})
        assert labels.ids[0, 0] == 0
        assert labels.present == [4]

    def test_unnamed_color(self):
        refused(
            "2 colors", "(0, 0, 255) on 2 pixels", "(0, 255, 0) on 1 pixels",
            source=colored(BLUE, RED, BLUE, GREEN), colors={1: RED},
        )  # fmt: skip

    def test_antialiased(self):
        array = np.arange(20 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4
        big = np.concatenate([array + i for i in range(4)])
        refused("80 different colors", "antialiased", "colors=", source=big, size=(5, 16))

    def test_gray_rgb_is_refused(self):
        gray = grid(1, 2, dtype=np.uint8)[..., None].repeat(3, 2)
        refused("gray picture stored as RGB", "colors=", "threshold", source=gray)
        table = {1: (1, 1, 1), 2: (2, 2, 2)}
        assert equal(read_labels(gray, SIZE, colors=table), 1, 2)

    def test_table_for_one_channel(self):
        refused("one channel", source=grid(1), colors={1: RED})

    def test_ignore_is_no_color(self):
        refused("ignore=255", "colors", source=colored(RED), ignore=255)
        assert equal(read_labels(colored(RED), SIZE, ignore="none"), 1)

    @pytest.mark.parametrize(
        "colors",
        [
            {1: "red"}, {1: 5}, {1: (1, 2)}, {1: (1, 2, 256)}, {1: (-1, 2, 3)}, {1: (0.5, 0, 0)},
            {1: None}, {1: ([1], 2, 3)}, {-1: RED}, {65_536: RED}, {"1": RED}, {1.0: RED},
            {1: RED, 2: RED}, [RED], {1: np.array(5)}, {1: {1, 2, 3}},
        ],
    )  # fmt: skip
    def test_malformed_table(self, colors):
        refused("colors", source=colored(RED), colors=colors)

    def test_table_of_numpy_values(self):
        table = check_colors({np.int64(3): np.array([1, 2, 3], np.uint8)})
        assert table == {3: (1, 2, 3)}
        assert all(type(v) is int for v in (*table, *table[3]))

    @pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.float32])
    def test_dtype(self, dtype):
        refused("color mask of dtype", "uint8", source=colored(RED).astype(dtype))


class TestMatchColors:
    def test_same_color_same_id(self):
        first = read_labels(colored(RED, WHITE), SIZE)
        second = read_labels(colored(GREEN, WHITE), SIZE)
        matched = match_colors([first, second])
        assert equal(matched[0], 2, 3)
        assert equal(matched[1], 1, 3)
        assert matched[0].colors == {2: RED, 3: WHITE}
        assert matched[1].colors == {1: GREEN, 3: WHITE}

    def test_one_empty_mask(self):
        matched = match_colors([read_labels(colored(), SIZE), read_labels(colored(RED), SIZE)])
        assert equal(matched[0])
        assert equal(matched[1], 1)

    def test_plain_ids_are_left_alone(self):
        maps = [read_labels(grid(4), SIZE), read_labels(colored(RED), SIZE, colors={4: RED})]
        assert match_colors(maps) is maps

    def test_mixture_is_refused(self):
        with pytest.raises(InputError, match="some examples have color masks, others ids"):
            match_colors([read_labels(grid(4), SIZE), read_labels(colored(RED), SIZE)])


class TestThreshold:
    def test_float(self):
        array = grid().astype(np.float32)
        array[0, :4] = (0.2, 0.5, 0.7, 1)
        assert equal(read_labels(array, SIZE, threshold=0.5), 0, 1, 1, 1)

    def test_antialiased_png(self, tmp_path):
        path = stored(tmp_path, Image.fromarray(grid(127, 128, 255, dtype=np.uint8)))
        refused("255 beside 127, 128", "threshold=128", source=path)
        assert equal(read_labels(path, SIZE, threshold=128), 0, 1, 1)

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_jpeg(self, tmp_path, mode):
        array = np.zeros((32, 48), np.uint8)
        array[8:24, 8:40] = 255
        path = stored(tmp_path, Image.fromarray(array).convert(mode), "mask.jpg", quality=95)
        refused("JPEG is lossy", "threshold=128", "PNG", source=path, size=(48, 32))
        refused("JPEG is lossy", source=Image.open(path), size=(48, 32))
        for source in (path, Image.open(path)):
            ids = read_labels(source, (48, 32), threshold=128).ids
            assert np.array_equal(ids, array // 255)

    def test_colors_have_no_threshold(self):
        refused("threshold reads one channel", source=colored(RED), threshold=128)

    def test_bool_needs_none(self):
        assert equal(read_labels(grid(1).astype(bool), SIZE, threshold=128), 1)

    @pytest.mark.parametrize("threshold", ["128", np.nan, np.inf, [1]])
    def test_malformed(self, threshold):
        refused("threshold=", "accepted: a number", source=grid(1), threshold=threshold)

    @pytest.mark.parametrize("threshold", [128, 128.0, np.uint8(128), np.float32(128)])
    def test_kinds_of_numbers(self, threshold):
        array = grid(127, 128, 200, dtype=np.uint8)
        assert equal(read_labels(array, SIZE, threshold=threshold), 0, 1, 1)


class TestAlpha:
    @pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
    def test_opaque_is_dropped(self, tmp_path, mode):
        gray = Image.fromarray(grid(0, 255, dtype=np.uint8))
        image = gray.convert(mode)
        source = stored(tmp_path, image) if mode != "PA" else image
        assert equal(read_labels(source, SIZE, ignore="none"), 0, 1 if mode == "RGBA" else 255)

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparency_is_refused(self, tmp_path, mode):
        image = Image.new(mode, SIZE, 0)
        refused("transparency", "alpha or the colors", source=stored(tmp_path, image))

    @pytest.mark.parametrize("mode", ["CMYK", "HSV", "LAB", "YCbCr", "RGBX"])
    def test_other_modes(self, mode):
        refused(f"mode {mode}", "accepted: 1, L, P", source=Image.new(mode, SIZE))


class TestSizes:
    def test_wrong_size(self):
        refused("5×4", "6×4", "same size", source=grid(1), size=(6, 4))
        refused("5×4", "4×5", source=grid(1), size=(4, 5))

    @pytest.mark.parametrize("shape", [(0, 5), (4, 5, 2), (4, 5, 4), (2, 4, 5), (1, 1, 4, 5), (5,)])
    def test_wrong_shape(self, shape):
        refused(f"{shape}", "(H, W) ids", "height 4", source=np.zeros(shape, np.uint8))

    @pytest.mark.parametrize("source", [None, 5, 1.5, object(), {1, 2}, b"mask.png"])
    def test_wrong_type(self, source):
        refused("given; accepted: path, PIL, numpy array, tensor", source=source)

    @pytest.mark.parametrize("form", ["sparse", "meta", "complex"])
    def test_tensors_without_values(self, form):
        tensor = {
            "sparse": lambda: torch.tensor(grid(1)).to_sparse(),
            "meta": lambda: torch.zeros(4, 5, device="meta"),
            "complex": lambda: torch.zeros(4, 5, dtype=torch.complex64).conj(),
        }[form]()
        refused("tensor", source=tensor)

    def test_missing_file(self, tmp_path):
        refused("nothing.png", "no such file", source=tmp_path / "nothing.png")
        refused("nothing.json", "no such file", source=tmp_path / "nothing.json")
        refused("a folder", source=tmp_path)

    def test_file_name_is_named(self, tmp_path):
        path = stored(tmp_path, Image.fromarray(grid(1, 255, dtype=np.uint8)))
        refused(str(path), source=path)

    def test_closed_and_truncated_pictures(self, tmp_path):
        noise = np.random.default_rng(0).integers(1, 200, (64, 64), dtype=np.uint8)
        path = stored(tmp_path, Image.fromarray(noise))
        path.write_bytes(path.read_bytes()[:2000])
        refused("damaged picture", source=path, size=(64, 64))
        refused("damaged picture", source=Image.open(path), size=(64, 64))
        closed = Image.open(stored(tmp_path, Image.fromarray(grid(1).astype(np.uint8)), "c.png"))
        closed.close()
        refused("damaged picture", source=closed)


WIDE = (32, 24)  # width, height of the pictures under COCO annotations
TRIANGLE = [2.0, 3.0, 20.0, 4.5, 9.0, 18.0]
SQUARE = [10, 10, 16, 10, 16, 16, 10, 16]


def drawn(*polygons: list[float]) -> np.ndarray:
    """Polygons on a 24×32 map, drawn by faster-coco-eval."""
    return coco.decode(coco.merge(coco.frPyObjects(list(polygons), 24, 32))).astype(bool)


def plain_rle(mask: np.ndarray) -> dict[str, object]:
    """Run lengths down the columns, zeros first."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


class TestCoco:
    def read(self, source: object, **options: object) -> np.ndarray:
        return read_labels(source, WIDE, **options).ids

    def test_polygon(self):
        ids = self.read({"segmentation": [TRIANGLE], "category_id": 5})
        assert drawn(TRIANGLE).sum() > 100
        assert np.array_equal(ids, drawn(TRIANGLE) * 5)

    def test_two_polygons_of_one_object(self):
        ids = self.read({"segmentation": [TRIANGLE, [25, 1, 30, 1, 30, 6]]})
        assert np.array_equal(ids, drawn(TRIANGLE, [25, 1, 30, 1, 30, 6]))

    @pytest.mark.parametrize("text", [True, False])
    @pytest.mark.parametrize("seed", range(6))
    def test_compressed_rle(self, text, seed):
        rng = np.random.default_rng(seed)
        mask = drawn(TRIANGLE) if seed == 0 else rng.random((24, 32)) < seed / 6
        rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        rle["counts"] = rle["counts"].decode() if text else rle["counts"]
        assert np.array_equal(self.read({"segmentation": rle, "category_id": 2}), mask * 2)
        assert np.array_equal(self.read(rle), mask)  # bare, id 1

    def test_long_runs(self):
        mask = np.zeros((700, 900), np.uint8)
        mask[:, 400:] = 1
        rle = coco.encode(np.asfortranarray(mask))
        assert np.array_equal(read_labels(rle, (900, 700)).ids, mask)

    @pytest.mark.parametrize("fill", [0, 1])
    def test_uniform(self, fill):
        mask = np.full((24, 32), fill, bool)
        rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert np.array_equal(self.read(rle), mask)
        assert np.array_equal(self.read(plain_rle(mask)), mask)

    def test_plain_rle(self):
        mask = drawn(TRIANGLE)
        annotation = {"segmentation": plain_rle(mask), "category_id": 9}
        assert np.array_equal(self.read(annotation), mask * 9)

    @pytest.mark.parametrize("order", [1, -1])
    def test_smaller_lies_over_larger(self, order):
        annotations = [
            {"segmentation": [TRIANGLE], "category_id": 3},
            {"segmentation": [SQUARE], "category_id": 4},
        ][::order]
        expected = np.where(drawn(SQUARE), 4, drawn(TRIANGLE) * 3)
        assert (drawn(SQUARE) & drawn(TRIANGLE)).any()
        assert np.array_equal(self.read(annotations), expected)

    def test_crowd_is_ignored(self):
        crowd = {"segmentation": plain_rle(drawn(SQUARE)), "category_id": 4, "iscrowd": 1}
        thing = {"segmentation": [TRIANGLE], "category_id": 3, "iscrowd": 0}
        expected = np.where(drawn(SQUARE), UNKNOWN, drawn(TRIANGLE) * 3)
        assert np.array_equal(self.read([crowd, thing]), expected)

    def test_no_annotations(self):
        assert not self.read([]).any()

    def test_numpy_category(self):
        annotation = {"segmentation": [SQUARE], "category_id": np.int64(6)}
        assert self.read(annotation).max() == 6

    @pytest.mark.parametrize(
        ("annotation", "wanted"),
        [
            ({}, "neither segmentation nor counts"),
            ({"segmentation": []}, "polygons"),
            ({"segmentation": None}, "polygons"),
            ({"segmentation": "abc"}, "polygons"),
            ({"segmentation": [[1, 2, 3, 4]]}, "six numbers"),
            ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "six numbers"),
            ({"segmentation": [[1, 2, 3, 4, 5, "6"]]}, "six numbers"),
            ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "six numbers"),
            ({"segmentation": [[1, 2, 3, 4, 5, float("inf")]]}, "six numbers"),
            ({"segmentation": [[1, 2, 3, 4, 5, 10**400]]}, "farther outside"),
            ({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, "farther outside"),
            ({"segmentation": [1, 2, 3, 4, 5, 6]}, "list of polygons"),
            ({"segmentation": {"size": [24, 32]}}, "neither segmentation nor counts"),
            ({"segmentation": {"counts": [768]}}, "RLE of size None"),
            ({"segmentation": {"size": 5, "counts": [768]}}, "RLE of size 5"),
            ({"segmentation": {"size": [32, 24], "counts": [768]}}, "expected [24, 32]"),
            ({"segmentation": {"size": [24, 32], "counts": [767]}}, "sum is width"),
            ({"segmentation": {"size": [24, 32], "counts": [-1, 769]}}, "whole numbers"),
            ({"segmentation": {"size": [24, 32], "counts": [0.5, 767.5]}}, "whole numbers"),
            ({"segmentation": {"size": [24, 32], "counts": None}}, "counts are a NoneType"),
            ({"segmentation": {"size": [24, 32], "counts": 768}}, "counts are a int"),
            ({"segmentation": {"size": [24, 32], "counts": ""}}, "cover 0 pixels"),
            ({"segmentation": {"size": [24, 32], "counts": "00"}}, "cover 0 pixels"),
            ({"segmentation": {"size": [24, 32], "counts": "é"}}, "outside 48 … 111"),
            ({"segmentation": {"size": [24, 32], "counts": "o" * 40}}, "endless"),
            ({"segmentation": {"size": [24, 32], "counts": "oo"}}, "end within a run"),
            ({"segmentation": [SQUARE], "category_id": 0}, "category_id 0"),
            ({"segmentation": [SQUARE], "category_id": 65_536}, "category_id 65536"),
            ({"segmentation": [SQUARE], "category_id": "cat"}, "category_id 'cat'"),
            ({"segmentation": [SQUARE], "category_id": None}, "category_id None"),
            ({"segmentation": [SQUARE], "category_id": 1.5}, "category_id 1.5"),
        ],
    )
    def test_malformed(self, annotation, wanted):
        refused("COCO annotation 0", wanted, source=annotation, size=WIDE)

    @pytest.mark.parametrize("item", [[0, 1], "a", None, 3])
    def test_list_of_other_things(self, item):
        refused("COCO annotation 0", "no dict", source=[item])


class TestCocoFile:
    @pytest.fixture
    def photo(self, tmp_path) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir()
        return stored(folder, Image.new("RGB", WIDE, "gray"), "cat.png")

    @pytest.fixture
    def content(self) -> dict[str, list[dict[str, object]]]:
        return {
            "images": [
                {"id": 7, "file_name": "train/cat.png", "width": 32, "height": 24},
                {"id": 8, "file_name": "dog.png", "width": 99, "height": 99},
            ],
            "annotations": [
                {"image_id": 7, "segmentation": [TRIANGLE], "category_id": 3},
                {"image_id": 8, "segmentation": [SQUARE], "category_id": 4},
                {"image_id": 7, "segmentation": [SQUARE], "category_id": 5},
            ],
        }

    def written(self, folder: Path, content: object) -> Path:
        path = folder / "instances.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    @pytest.mark.parametrize("convert", [str, Path])
    def test_by_file_name(self, tmp_path, photo, content, convert):
        example = Example(convert(photo), convert(self.written(tmp_path, content)))
        expected = np.where(drawn(SQUARE), 5, drawn(TRIANGLE) * 3)
        assert np.array_equal(example.labels.ids, expected)

    def test_without_sizes(self, tmp_path, photo, content):
        del content["images"][0]["width"], content["images"][0]["height"]
        assert Example(photo, self.written(tmp_path, content)).labels.present == [3, 5]

    def test_drawn_on_another_size(self, tmp_path, photo, content):
        content["images"][0].update(width=24, height=32)
        with pytest.raises(InputError, match=r"cat.png is 24×32 there, the picture is 32×24"):
            Example(photo, self.written(tmp_path, content))

    def test_array_has_no_name(self, tmp_path, content):
        with pytest.raises(InputError, match="pass the picture's path"):
            Example(np.zeros((24, 32, 3), np.uint8), self.written(tmp_path, content))

    def test_unknown_picture(self, tmp_path, photo, content):
        content["images"].pop(0)
        content["annotations"] = content["annotations"][1:2]
        with pytest.raises(InputError, match=r"0 pictures named 'cat.png', expected 1"):
            Example(photo, self.written(tmp_path, content))

    def test_two_pictures_of_one_name(self, tmp_path, photo, content):
        content["images"].append({"id": 9, "file_name": "val/cat.png"})
        with pytest.raises(InputError, match=r"2 pictures named 'cat.png'"):
            Example(photo, self.written(tmp_path, content))

    @pytest.mark.parametrize(
        "content",
        [
            "", "{", "[]", "{}", "null", "5", '"text"', '{"images": null, "annotations": []}',
            '{"images": [1], "annotations": []}', '{"images": [{"file_name": 3}]}',
            '{"images": [{"file_name": "cat.png"}], "annotations": [{"image_id": 1}]}',
            '{"images": [{"file_name": "cat.png", "id": 1}], "annotations": [{}]}',
            '{"images": [{"file_name": "cat.png", "id": 1}], "annotations": [[]]}',
            "[" * 100_000,
        ],
    )  # fmt: skip
    def test_malformed(self, tmp_path, photo, content):
        with pytest.raises(InputError, match=r"instances.json: not a COCO file"):
            Example(photo, self.written(tmp_path, content))

    def test_not_text(self, tmp_path, photo):
        path = tmp_path / "instances.json"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InputError, match=r"instances.json: not a COCO file"):
            Example(photo, path)


class TestExample:
    def test_upright_size_counts(self, tmp_path):
        exif = Image.Exif()
        exif[274] = 6  # shown turned by a quarter
        path = stored(tmp_path, Image.new("RGB", (4, 5)), "photo.jpg", exif=exif)
        assert Example(path, grid(1)).image.size == SIZE
        with pytest.raises(InputError, match="EXIF rotation counts upright"):
            Example(path, grid(1).T)

    def test_cropped(self):
        picture = np.zeros((40, 60, 3), np.uint8)
        labels = np.zeros((40, 60), np.uint8)
        labels[10:14, 20:28] = 3
        picture[10:14, 20:28] = RED
        part = Example(picture, labels).cropped(margin=0.25)
        # pads: 8 · 0.25 + 1 = 3 columns, 4 · 0.25 + 1 = 2 rows
        assert part.labels.ids.shape == (8, 14)
        assert part.image.size == (14, 8)
        assert np.array_equal(np.asarray(part.image)[..., 0] == 255, part.labels.ids == 3)

    def test_cropped_at_the_border(self):
        labels = np.zeros((40, 60), np.uint8)
        labels[0, 59] = 1
        part = Example(np.zeros((40, 60), np.uint8), labels).cropped()
        assert part.labels.ids.tolist() == [[0, 1], [0, 0]]

    def test_nothing_to_crop_around(self):
        example = Example(np.zeros((4, 5), np.uint8), grid(0))
        assert example.cropped() is example


class TestWhatReviewFound:
    """Masks that were once read as something else than they show."""

    def read(self, source, **options):
        return read_labels(source, (4, 4), **options)

    def test_renumbered_palette(self, tmp_path):
        rgb = np.zeros((4, 4, 3), np.uint8)
        rgb[1], rgb[2] = RED, GREEN
        Image.fromarray(rgb).save(tmp_path / "a.gif")
        stored = Image.open(tmp_path / "a.gif")
        if stored.mode == "P" and stored.getpalette()[:3] != [0, 0, 0]:
            with pytest.raises(InputError, match=r"background|palette"):
                self.read(tmp_path / "a.gif")
        mask = Image.fromarray(np.tile(np.array([0, 1], np.uint8), (4, 2))).convert("P")
        mask.putpalette([255, 0, 0, 0, 0, 0])
        with pytest.raises(InputError, match="black to id 1"):
            self.read(mask)

    def test_mask_with_orientation(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "a.png", exif=exif)
        with pytest.raises(InputError, match="EXIF orientation"):
            self.read(tmp_path / "a.png")

    def test_threshold_with_ignore(self):
        values = np.array([[0, 99, 100, 255]] * 4, np.uint8)
        assert self.read(values, threshold=100, ignore=255).ids[0].tolist() == [0, 0, 1, -1]

    def test_threshold_of_a_palette_counts_what_is_shown(self):
        inverted = Image.fromarray(np.array([[0, 255, 10, 250]] * 4, np.uint8)).convert("P")
        inverted.putpalette([255 - i // 3 for i in range(768)])
        assert self.read(inverted, threshold=128).ids[0].tolist() == [1, 0, 1, 0]
        colored = inverted.copy()
        colored.putpalette([i * 7 % 256 for i in range(768)])
        with pytest.raises(InputError, match="has colors"):
            self.read(colored, threshold=128)

    def test_stack_of_masks(self):
        with pytest.raises(InputError, match="stack of masks"):
            self.read(np.eye(4, dtype=np.uint8)[None].repeat(3, 0))

    def test_coco_takes_no_options(self):
        annotation = {"counts": [3, 13], "size": [4, 4], "category_id": 7}
        for options in ({"colors": {1: RED}}, {"ignore": 7}, {"threshold": 1}):
            with pytest.raises(InputError, match="COCO annotations say themselves"):
                self.read(annotation, **options)

    def test_annotations_of_two_pictures(self):
        one = {"counts": [3, 13], "size": [4, 4], "image_id": 1}
        with pytest.raises(InputError, match="of 2 pictures"):
            self.read([one, {**one, "image_id": 2}])
        with pytest.raises(InputError, match="a whole COCO file"):
            self.read({"images": [], "annotations": [one]})

    def test_photograph_as_mask(self):
        """Hundreds of ids can be meant, but hardly are."""
        with pytest.warns(UserWarning, match="100 different ids: is this a photograph"):
            read_labels(np.arange(100, dtype=np.uint8).reshape(10, 10), (10, 10))


class TestStoredValues:
    """What Pillow shows otherwise than it is stored."""

    @pytest.mark.parametrize("top", [255, 1])
    def test_white_is_zero(self, tmp_path, top):
        """tifffile writes bool so, ImageJ with an inverting table."""
        values = grid(1) > 0
        path = tmp_path / "m.tif"
        written = values if top == 1 else values.astype(np.uint8) * 255
        tifffile.imwrite(path, written, photometric="miniswhite")
        assert np.array_equal(tifffile.imread(path) > 0, values)
        for source in (path, str(path), Image.open(path), io.BytesIO(path.read_bytes())):
            assert np.array_equal(read_labels(source, SIZE).ids, values)
        decoded = Image.open(path)
        decoded.load()
        assert np.array_equal(read_labels(decoded, SIZE).ids, values)

    def test_white_is_zero_with_ids(self, tmp_path):
        path = tmp_path / "m.tif"
        tifffile.imwrite(path, grid(1, 7, dtype=np.uint8), photometric="miniswhite")
        assert equal(read_labels(path, SIZE), 1, 7)

    @pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
    def test_white_of_16_bits(self, tmp_path, dtype):
        values = grid(65_535, dtype=dtype)
        path = tmp_path / "m.tif"
        tifffile.imwrite(path, values)
        assert equal(read_labels(path, SIZE), 1)
        assert equal(read_labels(values, SIZE), 1)
        assert equal(read_labels(values, SIZE, ignore="none"), 65_535)
        assert equal(read_labels(grid(1, 65_535, dtype=dtype), SIZE), 1, 65_535)

    def test_deep_colors_are_refused(self, tmp_path):
        """Pillow keeps the upper 8 of 16 bits: ids below 256 would all be black."""
        colors = np.zeros((4, 5, 3), np.uint16)
        colors[0, 0] = 3
        tifffile.imwrite(tmp_path / "m.tif", colors, photometric="rgb")
        refused("more than 8 bits a channel", "m.tif", source=tmp_path / "m.tif")

    def test_turned_tiff_is_refused(self, tmp_path):
        exif = Image.Exif()
        exif[274] = 6
        path = stored(tmp_path, Image.fromarray(grid(1, dtype=np.uint8)), "m.tif", exif=exif)
        refused("EXIF orientation", "m.tif", source=path, size=SIZE[::-1])
        refused("EXIF orientation", source=Image.open(path), size=SIZE[::-1])

    @pytest.mark.parametrize("nodata", ["255", "-1", "nan"])
    def test_nodata_is_unknown(self, tmp_path, nodata):
        values = grid(1, 2, dtype=np.float32 if nodata == "nan" else np.int16)
        values[3, 4] = float(nodata)
        text = nodata.encode()
        tag = (42113, "s", len(text), text, True)
        tifffile.imwrite(tmp_path / "m.tif", values, extratags=[tag])
        ids = read_labels(tmp_path / "m.tif", SIZE).ids
        assert ids[3, 4] == UNKNOWN
        assert np.array_equal(ids[:3], values[:3])

    def test_npy(self, tmp_path):
        np.save(tmp_path / "m.npy", grid(1, 70_000 - 5000, dtype=np.int64))
        assert equal(read_labels(tmp_path / "m.npy", SIZE), 1, 65_000)
        np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
        refused("o.npy", "no readable .npy of numbers", source=tmp_path / "o.npy")
        (tmp_path / "d.npy").write_bytes((tmp_path / "m.npy").read_bytes()[:90])
        refused("d.npy", "no readable .npy", source=tmp_path / "d.npy")

    def test_masked_arrays(self):
        values = grid(1, 2)
        refused("masked", "filled(0)", "ignore=255", source=np.ma.masked_equal(values, 0))
        assert equal(read_labels(np.ma.masked_array(values), SIZE), 1, 2)


class TestLossy:
    @pytest.fixture
    def mask(self) -> Image.Image:
        values = np.zeros((48, 64), np.uint8)
        values[10:30, 20:50] = 255
        return Image.fromarray(values)

    @pytest.mark.parametrize(
        ("name", "options"),
        [("m.webp", {}), ("m.avif", {}), ("m.jp2", {"quality_layers": [4]}),
         ("m.tif", {"compression": "jpeg"}), ("m.jpg", {})],
    )  # fmt: skip
    def test_files(self, tmp_path, mask, name, options):
        path = stored(tmp_path, mask, name, **options)
        for source in (path, Image.open(path)):
            refused("lossy", "threshold=128", source=source, size=(64, 48))
        ids = read_labels(path, (64, 48), threshold=128).ids
        assert (ids != (np.asarray(mask) > 0)).mean() < 0.01

    @pytest.mark.parametrize("quality", [30, 80, 95])
    @pytest.mark.parametrize("kind", ["WEBP", "JPEG"])
    def test_saved_again_without_loss(self, tmp_path, kind, quality):
        """The container no longer tells, the colors do."""
        values = np.zeros((48, 64, 3), np.uint8)
        values[10:30, 20:50] = 255, 0, 0
        values[32:44, 5:15] = 0, 200, 40
        for colors in (values, values.max(-1, keepdims=True).repeat(3, 2)):
            memory = io.BytesIO()
            Image.fromarray(colors).save(memory, kind, quality=quality)
            again = stored(tmp_path, Image.open(memory).convert("RGB"), "m.png")
            with pytest.raises(InputError, match=r"colors|gray"):
                read_labels(again, (64, 48))

    def test_decoded_before(self, mask):
        memory = io.BytesIO()
        mask.save(memory, "WEBP")
        image = Image.open(memory)
        image.load()
        refused("a lossy or antialiased mask", "threshold=128", source=image, size=(64, 48))
        ids = read_labels(image, (64, 48), threshold=128).ids
        assert (ids != (np.asarray(mask) > 0)).mean() < 0.01

    def test_many_colors_that_are_told_apart(self):
        colors = np.array([(r, g, b) for r in (0, 80, 160, 240) for g in (0, 90, 180) for b in
                           (0, 100, 200)], np.uint8)[None]  # fmt: skip
        assert len(read_labels(colors, (36, 1)).present) == 35

    def test_few_near_colors_are_ids(self):
        """Ids in one channel of a color mask."""
        colors = np.array([(i, 0, 0) for i in (0, 1, 2, 9)], np.uint8)[None]
        assert read_labels(colors, (4, 1)).present == [1, 2, 3]
