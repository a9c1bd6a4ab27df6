"""Pictures: every usual and odd file, array and tensor becomes upright RGB or one clear error."""

import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from incontext import InputError
from incontext.images.data_mask import data_mask
from incontext.images.image import read_image, resize_nearest
from incontext.images.image_file import MAX_PIXELS, open_file
from incontext.images.normalizer import Normalizer

RAMP = np.arange(7 * 9 * 3, dtype=np.uint8).reshape(7, 9, 3)


def pixels(source: object) -> np.ndarray:
    """`read_image` as an array (H, W, 3)."""
    image = read_image(source)
    assert image.mode == "RGB"
    assert not image.info
    return np.asarray(image)


def stored(folder: Path, image: Image.Image, name: str, **options: object) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


def refused(source: object, *wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        read_image(source)
    text = str(caught.value)
    assert all(part in text for part in wanted), text


class TestOrientation:
    # What each EXIF orientation does to stored pixels when they are shown.
    SHOWN = (
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.swapaxes(0, 1),
        lambda a: np.rot90(a, -1),
        lambda a: np.rot90(a, 2).swapaxes(0, 1),
        np.rot90,
    )

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("name", ["p.png", "p.tif", "p.webp"])
    def test_all_eight(self, tmp_path, orientation, name):
        exif = Image.Exif()
        exif[274] = orientation
        options = {"lossless": True} if name == "p.webp" else {}
        path = stored(tmp_path, Image.fromarray(RAMP), name, exif=exif, **options)
        expected = self.SHOWN[orientation - 1](RAMP)
        assert np.array_equal(pixels(path), expected)
        assert np.array_equal(pixels(Image.open(path)), expected)

    def test_jpeg(self, tmp_path):
        exif = Image.Exif()
        exif[274] = 6
        left_red = Image.new("RGB", (32, 16), "blue")
        left_red.paste((255, 0, 0), (0, 0, 16, 16))
        array = pixels(stored(tmp_path, left_red, "p.jpg", exif=exif, quality=95))
        assert array.shape == (32, 16, 3)
        assert (array[:12, :, 0] > 240).all()
        assert (array[20:, :, 2] > 240).all()

    @pytest.mark.parametrize("orientation", [0, 9, 65_535])
    def test_orientations_that_do_not_exist(self, tmp_path, orientation):
        exif = Image.Exif()
        exif[274] = orientation
        path = stored(tmp_path, Image.fromarray(RAMP), "p.png", exif=exif)
        assert np.array_equal(pixels(path), RAMP)

    def test_open_file_does_not_turn(self, tmp_path):
        exif = Image.Exif()
        exif[274] = 6
        path = stored(tmp_path, Image.fromarray(RAMP), "p.png", exif=exif)
        assert open_file(path).size == (9, 7)


class TestModes:
    @pytest.mark.parametrize("name", ["p.png", "p.bmp", "p.tif", "p.ppm", "p.tiff"])
    def test_rgb(self, tmp_path, name):
        path = stored(tmp_path, Image.fromarray(RAMP), name)
        assert np.array_equal(pixels(path), RAMP)
        assert np.array_equal(pixels(str(path)), RAMP)

    def test_rgba_over_white(self, tmp_path):
        rgba = np.zeros((1, 3, 4), np.uint8)
        rgba[0] = [(200, 0, 0, 255), (200, 0, 0, 0), (200, 0, 100, 51)]
        for source in (rgba, stored(tmp_path, Image.fromarray(rgba), "p.png")):
            assert pixels(source).tolist() == [[[200, 0, 0], [255, 255, 255], [244, 204, 224]]]

    def test_gray(self, tmp_path):
        gray = RAMP[..., 0]
        path = stored(tmp_path, Image.fromarray(gray), "p.png")
        assert np.array_equal(pixels(path), gray[..., None].repeat(3, 2))

    def test_gray_with_alpha(self, tmp_path):
        image = Image.new("LA", (2, 1), (10, 255))
        image.putpixel((1, 0), (10, 0))
        path = stored(tmp_path, image, "p.png")
        assert pixels(path).tolist() == [[[10] * 3, [255] * 3]]

    def test_mode_1(self, tmp_path):
        image = Image.fromarray(np.eye(3, dtype=bool))
        path = stored(tmp_path, image, "p.png")
        assert np.array_equal(pixels(path)[..., 1], np.eye(3) * 255)

    @pytest.mark.parametrize("name", ["p.png", "p.tif", "p.pgm"])
    def test_16_bits_are_stretched(self, tmp_path, name):
        values = np.array([[1000, 2000], [3000, 1500]], np.uint16)
        expected = [[0, 128], [255, 64]]  # 127.5 and 63.75 round to the even and the near
        array = pixels(stored(tmp_path, Image.fromarray(values), name))
        assert array[..., 0].tolist() == expected
        assert np.array_equal(array[..., 0], array[..., 2])
        assert pixels(values)[..., 0].tolist() == expected

    def test_constant_16_bits(self):
        assert (pixels(np.full((2, 3), 700, np.uint16)) == 128).all()

    def test_float_tiff(self, tmp_path):
        values = np.array([[-3e38, 3e38, 0]], np.float32)  # a span beyond float32
        path = stored(tmp_path, Image.fromarray(values), "p.tif")
        low, high, middle = pixels(path)[0, :, 0].tolist()
        assert (low, high) == (0, 255)
        assert middle in (127, 128)

    @pytest.mark.parametrize("name", ["p.png", "p.tif"])
    def test_one_hot_pixel_leaves_the_picture_visible(self, tmp_path, name):
        values = np.linspace(300, 800, 60 * 60).reshape(60, 60).astype(np.uint16)
        values[7, 7] = 65_535
        array = pixels(stored(tmp_path, Image.fromarray(values), name))[..., 0]
        assert 110 < array.mean() < 145
        assert array.min() == 0

    def test_sparse_objects_are_not_cut_off(self):
        """Less than a percent of the pixels: they set the contrast, the background stays dark."""
        values = np.random.default_rng(0).integers(300, 320, (100, 100)).astype(np.uint16)
        values[5:12, 5:12] = np.arange(49).reshape(7, 7) * 50 + 2000
        array = pixels(values)[..., 0]
        assert array[50:].max() < 5
        assert len(np.unique(array[5:12, 5:12])) > 30

    @pytest.mark.parametrize("kind", ["path", "pil"])
    def test_float_without_data(self, tmp_path, kind):
        values = np.linspace(0, 9, 64, dtype=np.float32).reshape(8, 8)
        values[0, 0], values[7, 7] = np.nan, np.inf
        path = stored(tmp_path, Image.fromarray(values), "p.tif")
        image = read_image(path if kind == "path" else Image.open(path))
        assert np.array_equal(data_mask(image), np.isfinite(values))
        assert image.getpixel((0, 0)) == image.getpixel((7, 7)) == (255, 255, 255)
        values[:] = np.nan
        with pytest.warns(UserWarning, match="no pixel holds data"):
            image = read_image(stored(tmp_path, Image.fromarray(values), "p.tif"))
        assert not data_mask(image).any()

    @pytest.mark.parametrize("dtype", [">i2", ">i4", ">f4", "<i2", ">u2"])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_deep_values_in_any_order_of_bytes(self, tmp_path, dtype, compression):
        values = np.arange(-30, 34).reshape(8, 8) * 100 + (4000 if "u" in dtype else 0)
        tifffile.imwrite(tmp_path / "p.tif", values.astype(dtype), byteorder=dtype[0],
                         compression=compression)  # fmt: skip
        array = pixels(tmp_path / "p.tif")[..., 0].ravel().astype(int)
        assert (np.diff(array) > 0).all()
        assert (array[0], array[-1]) == (0, 255)

    def test_what_is_transparent_holds_no_data(self, tmp_path):
        rgba = np.full((6, 5, 4), 200, np.uint8)
        rgba[:2, :, 3], rgba[2:4, :, 3] = 0, 255
        opaque = rgba[..., 3] > 0
        path = stored(tmp_path, Image.fromarray(rgba), "p.png")
        palette = Image.fromarray(opaque.astype(np.uint8))
        palette.putpalette([9, 9, 9, 99, 9, 9])
        path2 = stored(tmp_path, palette, "p.gif", transparency=0, optimize=False)
        for source in (path, Image.open(path), rgba, path2):
            image = read_image(source)
            assert np.array_equal(data_mask(image), opaque)
            assert np.array_equal(data_mask(read_image(image)), opaque)  # read again
            assert data_mask(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) is None
        assert data_mask(read_image(rgba[..., :3])) is None

    @pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (3, 6, 5)])
    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
    def test_masked_arrays(self, shape, dtype):
        if dtype == "uint16" and len(shape) == 3:
            return
        values = (np.arange(np.prod(shape)).reshape(shape) / 90).astype("float32")
        values = values if dtype == "float32" else (values * 250).astype(dtype)
        mask = np.zeros(shape, bool)
        mask[(slice(None), slice(2, 4), slice(2)) if shape[0] == 3 else np.s_[2:4, :2]] = True
        image = read_image(np.ma.masked_array(values, mask))
        expected = np.ones((6, 5), bool)
        expected[2:4, :2] = False
        assert np.array_equal(data_mask(image), expected)

    def test_png_with_much_text_is_read(self, tmp_path):
        info = PngImagePlugin.PngInfo()
        info.add_text("project", "x" * 3_000_000, zip=True)
        info.add_itxt("more", "y" * 3_000_000, zip=True)
        path = stored(tmp_path, Image.fromarray(RAMP), "p.png", pnginfo=info)
        assert np.array_equal(pixels(path), RAMP)

    def test_cmyk_jpeg(self, tmp_path):
        image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red ink
        path = stored(tmp_path, image, "p.jpg", quality=95)
        assert Image.open(path).mode == "CMYK"
        red, green, blue = pixels(path).reshape(-1, 3).mean(0)
        assert red > 245
        assert max(green, blue) < 10

    def test_palette(self, tmp_path):
        image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
        image.putpalette([9, 8, 7, 255, 0, 0, 0, 0, 255])
        path = stored(tmp_path, image, "p.png")
        assert pixels(path).tolist() == [[[9, 8, 7], [255, 0, 0], [0, 0, 255]]]

    @pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"])
    def test_palette_with_transparency(self, tmp_path, transparency):
        image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
        image.putpalette([9, 8, 7, 255, 0, 0, 0, 0, 255])
        path = stored(tmp_path, image, "p.png", transparency=transparency)
        assert pixels(path).tolist() == [[[9, 8, 7], [255, 255, 255], [0, 0, 255]]]

    def test_transparent_color(self, tmp_path):
        path = stored(tmp_path, Image.fromarray(RAMP), "p.png", transparency=(0, 1, 2))
        expected = RAMP.copy()
        expected[(RAMP == (0, 1, 2)).all(-1)] = 255
        assert np.array_equal(pixels(path), expected)

    @pytest.mark.parametrize(
        "mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA",
                 "RGBX", "RGBa", "I;16", "I;16B", "I;16L"],
    )  # fmt: skip
    def test_pil_modes(self, mode):
        assert pixels(Image.new(mode, (4, 3))).shape == (3, 4, 3)

    def test_mode_without_conversion(self):
        refused(Image.new("La", (4, 3)), "mode La")

    def test_caller_keeps_the_picture(self):
        image = Image.fromarray(RAMP)
        read_image(image).paste(0, (0, 0, 9, 7))
        assert np.array_equal(np.asarray(image), RAMP)


class TestFrames:
    @pytest.mark.parametrize("name", ["p.gif", "p.tif", "p.webp", "p.png"])
    def test_first_of_several(self, tmp_path, name):
        frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue", "green")]
        options = {"lossless": True} if name == "p.webp" else {}
        path = stored(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], **options)
        with pytest.warns(UserWarning, match=r"3 frames; the first one is used") as caught:
            array = pixels(path)
        assert len(caught) == 1
        assert (array == (255, 0, 0)).all()

    def test_one_frame_has_no_warning(self, tmp_path):
        path = stored(tmp_path, Image.new("RGB", (8, 6), "red"), "p.gif")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (pixels(path) == (255, 0, 0)).all()

    def test_preview_behind_a_photo(self, tmp_path):
        photo, preview = Image.new("RGB", (32, 16), "red"), Image.new("RGB", (8, 4), "blue")
        path = stored(tmp_path, photo, "p.mpo", save_all=True, append_images=[preview])
        path = path.rename(tmp_path / "photo.jpg")
        assert Image.open(path).format == "MPO"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            array = pixels(path)
        assert array.shape == (16, 32, 3)
        assert (array[..., 0] > 245).all()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    shape = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", shape) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


class TestSizes:
    @pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
    @pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.webp"])
    def test_thin(self, tmp_path, size, name):
        path = stored(tmp_path, Image.new("RGB", size, "red"), name)
        assert pixels(path).shape == (size[1], size[0], 3)

    def test_too_many_pixels(self, tmp_path):
        path = tmp_path / "bomb.png"
        path.write_bytes(png_header(60_000, 60_000))
        tracemalloc.start()
        refused(path, "bomb.png", "60000×60000 is more than 200 megapixels", "cut it into parts")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        tracemalloc.stop()

    def test_limit_is_ours(self, tmp_path):
        # Pillow alone refuses 190 megapixels; here the file is found to be damaged, not too large.
        path = tmp_path / "large.png"
        path.write_bytes(png_header(100_000, 1900))
        before = Image.MAX_IMAGE_PIXELS
        assert 2 * before < 190_000_000 < MAX_PIXELS
        refused(path, "damaged picture")
        assert before == Image.MAX_IMAGE_PIXELS


class TestFiles:
    def test_missing(self, tmp_path):
        refused(tmp_path / "no.png", "no.png", "no such file")
        refused("a\0b.png", "no such file")
        refused("", "a folder")
        refused(tmp_path, "a folder")

    @pytest.mark.parametrize(
        ("name", "content", "wanted"),
        [
            ("text.png", b"hello, this is no picture at all\n" * 9, "not a picture; accepted: PNG"),
            ("page.png", b"<!DOCTYPE html><html><body>404</body></html>", "not a picture"),
            ("logo.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a picture"),
            ("empty.jpg", b"", "an empty file; accepted: PNG, JPEG"),
            ("zeros.png", bytes(5000), "not a picture"),
            ("head.png", b"\x89PNG\r\n\x1a\n", "picture"),
            ("head.jpg", b"\xff\xd8\xff\xe0", "picture"),
            ("head.gif", b"GIF89a", "picture"),
        ],
    )
    def test_not_pictures(self, tmp_path, name, content, wanted):
        path = tmp_path / name
        path.write_bytes(content)
        refused(path, str(path), wanted)

    @pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.webp", "p.bmp", "p.tif", "p.gif"])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_truncated(self, tmp_path, name, share):
        noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        path = stored(tmp_path, Image.fromarray(noise), name)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        refused(path, str(path), "picture")

    def test_suffix_does_not_matter(self, tmp_path):
        path = stored(tmp_path, Image.fromarray(RAMP), "p.png").rename(tmp_path / "p.dat")
        assert np.array_equal(pixels(path), RAMP)

    @pytest.mark.parametrize("name", ["ä ö.png", "[1].png", "日本.png", "-.png", "a.b.c"])
    def test_names(self, tmp_path, name):
        path = tmp_path / name
        Image.fromarray(RAMP).save(path, "PNG")
        assert np.array_equal(pixels(path), RAMP)

    def test_lazy_pil_picture(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        path = stored(tmp_path, Image.fromarray(noise), "p.png")
        path.write_bytes(path.read_bytes()[:3000])
        refused(Image.open(path), "damaged picture")
        closed = Image.open(stored(tmp_path, Image.fromarray(RAMP), "q.png"))
        closed.close()
        refused(closed, "damaged picture")

    @pytest.mark.parametrize(
        "damage", [b"", b"\xff", b"MM\0*\0\0\0\x08\0", b"II*\0\xff\xff\xff\xff"]
    )
    @pytest.mark.filterwarnings("ignore:.*EXIF")
    def test_damaged_exif_is_no_orientation(self, tmp_path, damage):
        path = stored(tmp_path, Image.fromarray(RAMP), "p.jpg", exif=b"Exif\0\0" + damage)
        assert pixels(path).shape == RAMP.shape


class TestArrays:
    @pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            ((7, 9), (7, 9)), ((7, 9, 1), (7, 9)), ((7, 9, 3), (7, 9)), ((7, 9, 4), (7, 9)),
            ((1, 7, 9), (7, 9)), ((3, 7, 9), (7, 9)), ((4, 7, 9), (7, 9)), ((1, 9, 3), (1, 9)),
            ((1, 1), (1, 1)), ((1, 5000), (1, 5000)), ((1, 1, 3), (1, 1)),
        ],
    )  # fmt: skip
    def test_shapes(self, kind, shape, expected):
        array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        assert pixels(kind(array)).shape == (*expected, 3)

    def test_channels_first(self):
        assert np.array_equal(pixels(np.moveaxis(RAMP, -1, 0)), RAMP)
        assert np.array_equal(pixels(torch.from_numpy(RAMP).permute(2, 0, 1)), RAMP)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_floats(self, dtype):
        array = (RAMP / 255).astype(dtype)
        assert np.array_equal(pixels(array), RAMP)
        assert np.array_equal(pixels(torch.from_numpy(array)), RAMP)

    def test_bfloat16(self):
        array = pixels(torch.tensor([[0, 0.5, 1]], dtype=torch.bfloat16))
        assert array[0, :, 0].tolist() == [0, 128, 255]

    @pytest.mark.parametrize("shape", [(2, 3), (2, 3, 3)])
    def test_bool(self, shape):
        assert (pixels(np.ones(shape, bool)) == 255).all()
        assert (pixels(np.zeros(shape, bool)) == 0).all()

    def test_views(self):
        assert np.array_equal(pixels(RAMP[::-1, ::2]), RAMP[::-1, ::2])

    @pytest.mark.parametrize("values", [[1.1], [-0.1], [np.nan], [np.inf], [255.0]])
    def test_floats_outside(self, values):
        refused(np.array([values]), "0–1", "uint8 in 0–255")
        refused(torch.tensor([values]), "0–1")

    @pytest.mark.parametrize(
        "dtype",
        [np.int8, np.int16, np.int32, np.int64, np.uint32, np.uint64, complex, object, "U1"],
    )
    def test_other_dtypes(self, dtype):
        refused(np.zeros((2, 3), dtype), "dtype", "accepted: uint8, bool, uint16")

    def test_16_bit_color(self):
        refused(np.zeros((2, 3, 3), np.uint16), "uint16", "uint16 (H, W)")

    @pytest.mark.parametrize(
        "shape", [(), (5,), (0, 5), (5, 0), (5, 6, 2), (2, 5, 6), (5, 6, 0), (1, 3, 5, 6)]
    )
    def test_other_shapes(self, shape):
        refused(np.zeros(shape, np.uint8), f"shape {shape}", "(H, W, 3)")
        refused(torch.zeros(shape, dtype=torch.uint8), f"shape {shape}")

    @pytest.mark.parametrize("source", [None, 5, b"p.png", [[1, 2]], {"a": 1}, object()])
    def test_other_types(self, source):
        refused(source, "accepted: path, PIL, numpy array, tensor")

    def test_tensors_without_values(self):
        refused(torch.zeros(4, 5, device="meta"), "tensor")
        refused(torch.zeros(4, 5).to_sparse(), "tensor")


class TestResizeNearest:
    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(*[st.integers(1, 70)] * 4)
    def test_equals_pillow(self, height, width, new_height, new_width):
        array = np.arange(height * width, dtype=np.int32).reshape(height, width)
        size = (new_width, new_height)
        expected = np.asarray(Image.fromarray(array).resize(size, Image.Resampling.NEAREST))
        assert np.array_equal(resize_nearest(array, size[::-1]), expected)

    @pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32, np.int64])
    def test_any_dtype_and_channels(self, dtype):
        array = RAMP.astype(dtype)
        large = resize_nearest(array, (14, 27))
        assert large.dtype == dtype
        assert np.array_equal(large, array.repeat(2, 0).repeat(3, 1))


class TestNormalizer:
    MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def test_round_trip(self):
        normalizer = Normalizer(self.MEAN, self.STD)
        levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
        restored = normalizer.restore(normalizer.array(levels))
        assert restored.dtype == torch.float32
        assert (restored - torch.from_numpy(levels).permute(2, 0, 1)).abs().max() < 1e-3

    def test_values(self):
        normalizer = Normalizer(self.MEAN, self.STD)
        values = normalizer.array(np.full((2, 3, 3), 255, np.uint8))
        assert values.shape == (3, 2, 3)
        expected = [(1 - m) / s for m, s in zip(self.MEAN, self.STD, strict=True)]
        assert torch.allclose(values[:, 0, 0], torch.tensor(expected))

    def test_restore_clips(self):
        normalizer = Normalizer(self.MEAN, self.STD)
        assert normalizer.restore(torch.full((2, 3, 1, 1), 99.0)).eq(255).all()
        assert normalizer.restore(torch.full((2, 3, 1, 1), -99.0)).eq(0).all()

    def test_image_is_resized_bicubic(self):
        normalizer = Normalizer((0, 0, 0), (1, 1, 1))
        image = Image.fromarray(RAMP)
        expected = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))
        values = normalizer.image(image, 16)
        assert np.array_equal((values * 255).round().byte().permute(1, 2, 0).numpy(), expected)


def test_names_that_are_too_long_get_a_sentence():
    with pytest.raises(InputError, match="xxx"):
        read_image("x" * 5000 + ".png")
