"""GeoTIFF in and out: what is shown of it, and that labels lie where their picture lies."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from incontext import InputError, export, read_examples
from incontext.images.image import read_image
from incontext.images.raster import is_raster

rasterio = pytest.importorskip("rasterio", reason="needs rasterio (geo extra)")
from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.enums import ColorInterp  # noqa: E402
from rasterio.rpc import RPC  # noqa: E402
from rasterio.transform import Affine  # noqa: E402

HEIGHT, WIDTH = 40, 48
PLACE = {"crs": "EPSG:32632", "transform": Affine(0.25, 0.01, 500_000.5, -0.02, -0.25, 5_400_000.0)}
RAMP = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)


def tif(path: Path, values: np.ndarray, colors=None, **profile) -> Path:
    """Bands (B, H, W) as a georeferenced file."""
    profile = {"driver": "GTiff", "height": values.shape[1], "width": values.shape[2],
               "count": len(values), "dtype": values.dtype.name, **PLACE, **profile}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not georeferenced, where a test wants it so
        with rasterio.open(path, "w", **profile) as file:
            file.write(values)
            if colors:
                file.colorinterp = colors
    return path


def bands(count: int, dtype: str, scale: float = 1, base: float = 0) -> np.ndarray:
    """Each band a ramp of its own direction; band n differs from all others."""
    turned = [RAMP, RAMP[::-1], RAMP[:, ::-1], 1 - RAMP**2, RAMP**3][:count]
    return np.stack([base + scale * band for band in turned]).astype(dtype)


def alike(shown: np.ndarray, band: np.ndarray) -> bool:
    """Whether 8 bits show a band, up to its range: order is kept, and all of the range is used."""
    order = np.argsort(band.ravel(), kind="stable")
    steps = np.diff(shown.ravel()[order].astype(int))
    return bool((steps >= 0).all()) and shown.max() - shown.min() > 150


TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}


@pytest.mark.parametrize(
    "stored", [{}, TILED, TILED | {"interleave": "band"}, {"compress": "lerc"}], ids=str
)
@pytest.mark.parametrize(
    ("dtype", "scale", "base"),
    [("uint8", 255, 0), ("uint16", 3000, 400), ("int16", 2000, -900), ("float32", 1e-3, 5),
     ("float64", 1e9, 0), ("int8", 200, -100), ("uint32", 4e9, 0)],
)  # fmt: skip
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_bands_that_are_shown(tmp_path, stored, dtype, scale, base, count):
    values = bands(count, dtype, scale, base)
    shown = np.asarray(read_image(tif(tmp_path / "a.tif", values, **stored)))
    for channel in range(3):
        assert alike(shown[..., channel], values[channel if count >= 3 else 0])
    if dtype == "uint8":
        assert np.array_equal(shown[..., 0], values[0])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_bands_follow_their_colors(tmp_path, dtype):
    """Near infrared in front: red, green and blue are found by what the file calls them."""
    values = bands(4, dtype, 250)
    said = [ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    shown = np.asarray(read_image(tif(tmp_path / "a.tif", values, said, photometric="MINISBLACK")))
    for channel, band in enumerate((3, 2, 1)):
        assert alike(shown[..., channel], values[band])


def test_near_infrared_marked_as_alpha_is_told(tmp_path):
    with pytest.warns(UserWarning, match="band 4 is marked as alpha.*colorinterp 4=undefined"):
        read_image(tif(tmp_path / "a.tif", bands(4, "uint8", 255)))


@pytest.mark.parametrize("big", ["YES", "NO"])
@pytest.mark.parametrize("order", ["BIG", "LITTLE"])
def test_byte_orders(tmp_path, order, big):
    plain = bands(3, "uint8", 255)
    read = read_image(
        tif(tmp_path / "b.tif", plain, photometric="RGB", ENDIANNESS=order, BIGTIFF=big)
    )
    assert np.array_equal(np.moveaxis(np.asarray(read), -1, 0), plain)
    values = bands(5, "uint16", 3000)
    path = tif(tmp_path / "a.tif", values, ENDIANNESS=order, BIGTIFF=big)
    start = {"BIG": b"MM\0", "LITTLE": b"II"}[order] + {"YES": b"+", "NO": b"*"}[big]
    assert path.read_bytes().startswith(start)
    assert is_raster(path)
    assert alike(np.asarray(read_image(path))[..., 1], values[1])


def test_one_hot_pixel_leaves_the_picture_visible(tmp_path):
    values = bands(3, "uint16", 1000)
    values[:, 0, 0] = 65_535
    assert 100 < np.asarray(read_image(tif(tmp_path / "a.tif", values))).mean() < 155


def test_colors_keep_their_hue(tmp_path):
    """One range for all bands: what is twice as red stays so."""
    values = np.stack([RAMP * 2000, RAMP * 1000, RAMP * 0]).astype(np.uint16)
    red, green, blue = np.asarray(read_image(tif(tmp_path / "a.tif", values))).T.astype(int)
    assert np.abs(red - 2 * green)[red < 255].max() <= 2
    assert blue.max() == 0


@pytest.mark.parametrize(
    ("nodata", "value"), [(-9999, -9999), (float("nan"), float("nan")), (None, np.inf)]
)
def test_what_holds_no_data_is_white(tmp_path, nodata, value):
    values = bands(1, "float32", 3, 1)
    values[:, :7] = value
    shown = np.asarray(read_image(tif(tmp_path / "a.tif", values, nodata=nodata)))
    assert (shown[:7] == 255).all()
    assert alike(shown[7:, :, 0], values[0, 7:])


def test_nothing_but_nodata_is_told(tmp_path):
    path = tif(tmp_path / "a.tif", np.zeros((3, 9, 9), np.uint16), nodata=0)
    with pytest.warns(UserWarning, match="no pixel holds data"):
        assert (np.asarray(read_image(path)) == 255).all()


def test_rare_and_constant_values(tmp_path):
    flat = np.full((3, HEIGHT, WIDTH), 700, np.uint16)
    assert (np.asarray(read_image(tif(tmp_path / "a.tif", flat))) == 128).all()
    flat[:, 5, 5] = 900  # less than a percent: the whole range counts then
    shown = np.asarray(read_image(tif(tmp_path / "a.tif", flat)))
    assert (shown[5, 5] == 255).all()
    assert (shown[0, 0] == 0).all()


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    path = tif(tmp_path / "a.tif", bands(3, "float32") * 1j)
    with pytest.raises(InputError, match="complex numbers"):
        read_image(path)
    path = tif(tmp_path / "b.tif", bands(3, "uint16", 900))
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(InputError, match=r"b\.tif: damaged picture"):
        read_image(path)
    monkeypatch.setattr("incontext.images.image.MAX_PIXELS", 100)
    with pytest.raises(InputError, match="48×40 is more than 0 megapixels"):
        read_image(tif(tmp_path / "c.tif", bands(3, "uint16", 900)))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(InputError, match=r"needs rasterio: pip install 'incontext-seg\[geo\]'"):
        read_image(tmp_path / "c.tif")


def georeference(file) -> tuple:
    points, system = file.gcps
    rational = file.rpcs.to_dict() if file.rpcs else None
    return file.crs, file.transform, [p.asdict() for p in points], system, rational


def points() -> dict:
    corners = [(0, 0), (0, WIDTH), (HEIGHT, 0), (HEIGHT, WIDTH)]
    return {
        "gcps": [GroundControlPoint(r, c, 7 + c / 999, 50 - r / 777, 3.5) for r, c in corners],
        "crs": "EPSG:4326", "transform": None,
    }  # fmt: skip


def rational() -> dict:
    terms = [0.001 * n for n in range(20)]
    said = RPC(
        height_off=10.0, height_scale=100.0, lat_off=50.0, lat_scale=0.5, line_den_coeff=terms,
        line_num_coeff=terms, line_off=20.0, line_scale=20.0, long_off=7.0, long_scale=0.5,
        samp_den_coeff=terms, samp_num_coeff=terms, samp_off=24.0, samp_scale=24.0,
    )  # fmt: skip
    return {"rpcs": said, "crs": None, "transform": None}


@pytest.mark.parametrize("place", [lambda: PLACE, points, rational, lambda: {"crs": None}],
                         ids=["transform", "points", "rational", "no system"])  # fmt: skip
def test_georeference_is_kept(tmp_path, tiny_checkpoint, incontext, place):
    """From the picture over results and label rasters to examples again."""
    source = tif(tmp_path / "in/field.tif", bands(4, "uint16", 3000), **TILED, **place())
    mask = tmp_path / "mask.tif"
    with rasterio.open(mask, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=1,
                       dtype="uint16", **PLACE) as file:  # fmt: skip
        file.write(np.where(RAMP > 0.5, 300, 0).astype(np.uint16), 1)
        file.update_tags(1, class_300="late")
    results = tmp_path / "results"
    label = incontext(
        "segment", source, "--examples-from", mask, "--images", source, "--checkpoint",
        tiny_checkpoint, "--out", results,
    ) if place() == PLACE else incontext(
        "segment", source, "--example", source, mask, "--name", "300=late", "--checkpoint",
        tiny_checkpoint, "--out", results,
    )  # fmt: skip
    assert label.code == 0, label.err
    out = export(results, "geotiff", tmp_path / "geo")
    with rasterio.open(source) as one, rasterio.open(out / "field.tif") as other:
        assert georeference(one) == georeference(other)
        assert one.crs or one.gcps[0] or one.rpcs or not one.transform.is_identity
        labels = other.read(1)
    [again] = read_examples(out, images=tmp_path / "in")
    [before] = read_examples(results)
    assert np.array_equal(again.labels.ids, labels)
    assert np.array_equal(again.labels.ids, before.labels.ids)
    assert again.names == {300: "late"}


def rasters(folder: Path, labels: np.ndarray, **profile) -> Path:
    tif(folder / "in/a.tif", bands(3, "uint16", 900))
    return tif(folder / "labels/a.tif", labels[None], **profile).parent


def test_rasters_of_others(tmp_path):
    ids = np.where(RAMP > 0.5, 2, 0).astype(np.int16)
    ids[0] = -1
    [one] = read_examples(rasters(tmp_path, ids, nodata=-1), images=tmp_path / "in")
    assert np.array_equal(one.labels.ids, ids)  # what has no data is unknown


IDS = np.zeros((HEIGHT, WIDTH), np.uint8)


@pytest.mark.parametrize(
    ("labels", "profile", "text"),
    [
        (IDS, {"transform": Affine(0.25, 0, 9, 0, -0.25, 9)}, "lies elsewhere on earth than"),
        (IDS, {"crs": "EPSG:32633"}, "lies elsewhere on earth than"),
        (IDS[:9], {}, "labels of 48×9, their picture is 48×40"),
        (IDS.astype(np.float32), {}, "1 bands of float32; accepted: one of whole numbers"),
        (IDS.astype(np.int16) - 5, {}, "ids -5 … -5; accepted: 0 … 65535"),
    ],
)
def test_rasters_that_are_wrong(tmp_path, labels, profile, text):
    path = rasters(tmp_path, labels, **profile)
    with pytest.raises(InputError, match=r"labels/a\.tif: ") as told:
        list(read_examples(path, images=tmp_path / "in"))
    assert text in str(told.value)
    with pytest.raises(InputError, match="say where their pictures are"):
        list(read_examples(path))


def test_a_plain_tiff_has_no_place_on_earth(tmp_path, tiny_checkpoint, incontext):
    source = tif(tmp_path / "a.tif", bands(3, "uint16", 900), crs=None, transform=None)
    mask = tif(tmp_path / "m.tif", IDS[None] + 1)
    answer = incontext("segment", source, "--example", source, mask, "--checkpoint",
                       tiny_checkpoint, "--out", tmp_path / "r")  # fmt: skip
    assert answer.code == 0
    with pytest.raises(InputError, match="does not say where on earth"):
        export(tmp_path / "r", "geotiff", tmp_path / "geo")
