"""GeoTIFF in and out: what is shown of it, and that labels lie where their picture lies."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile

from incontext import Example, InputError, Predictor, export, read_examples
from incontext.images.data_mask import data_mask
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
    mask = data_mask(read_image(tmp_path / "a.tif"))
    assert mask is not None
    assert not mask[:7].any()
    assert mask[7:].all()


TURNS = [
    lambda a: a,
    lambda a: a[:, ::-1],
    lambda a: a[::-1, ::-1],
    lambda a: a[::-1],
    lambda a: a.T,
    lambda a: a.T[:, ::-1],
    lambda a: a.T[::-1, ::-1],
    lambda a: a.T[::-1],
]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_has_a_turned_data_mask(tmp_path, orientation):
    values = bands(1, "float32", 3, 1)
    values[:, :7, :5] = -9
    path, text = tmp_path / "a.tif", b"-9"
    tags = [(274, "H", 1, orientation, True), (42113, "s", len(text), text, True)]
    tifffile.imwrite(path, values[0], extratags=tags, metadata=None)
    assert is_raster(path)
    image = read_image(path)
    expected = TURNS[orientation - 1](values[0] != -9)
    assert np.array_equal(data_mask(image), expected)
    assert ((np.asarray(image) == 255).all(-1) >= ~expected).all()


def test_eight_bits_without_data(tmp_path):
    """Nodata keeps its color, a mask makes white; both say where there is no data."""
    values = bands(3, "uint8", 200, 20)
    values[:, :7] = 0
    image = read_image(tif(tmp_path / "a.tif", values, nodata=0, photometric="RGB"))
    assert np.array_equal(np.asarray(image), np.moveaxis(values, 0, -1))
    assert np.array_equal(data_mask(image), values[0] > 0)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = tif(tmp_path / "b.tif", values, photometric="RGB")
        with rasterio.open(path, "r+") as file:
            file.write_mask(values[0] > 0)
    assert is_raster(path)
    image = read_image(path)
    assert np.array_equal(data_mask(image), values[0] > 0)
    assert (np.asarray(image)[:7] == 255).all()
    assert np.array_equal(np.asarray(image)[7:], np.moveaxis(values, 0, -1)[7:])


def test_answers_are_background_where_there_is_no_data(tmp_path):
    """Objects are white, and so is what holds no data; through to the exported map."""
    predictor = Predictor.from_pretrained()
    labels = np.zeros((96, 96), np.uint8)
    labels[20:60, 30:70] = 1
    picture = np.full((3, 96, 96), 600, np.uint16)
    picture[:, labels > 0] = 4000
    example = tif(tmp_path / "in/ex.tif", picture)
    query = picture.copy()
    query[:, :, :30] = 0
    path = tif(tmp_path / "in/q.tif", query, nodata=0)
    prompt = predictor.prompt(Example(example, labels))
    for options in ({}, {"tile": 48}):
        result = predictor.predict(path, prompt, **options)
        assert (result.labels[:, :30] == 0).all()
        assert (result.confidence[:, :30] == 0).all()
        assert (result.labels[:, 30:] > 0).any()
        assert result.mean_confidence == pytest.approx(result.confidence[:, 30:].mean(), rel=1e-5)
    tif(tmp_path / "in/empty.tif", query * 0, nodata=0)
    with pytest.warns(UserWarning, match="no pixel holds data"):
        empty = predictor.predict(tmp_path / "in/empty.tif", prompt)
    assert not empty.labels.any()
    assert empty.presence == {1: 0}
    assert empty.mean_confidence == 0


def test_maps_are_background_where_there_is_no_data(tmp_path, incontext):
    labels = np.zeros((96, 96), np.uint8)
    labels[20:60, 30:70] = 1
    picture = np.full((3, 96, 96), 600, np.uint16)
    picture[:, labels > 0] = 4000
    example, mask = tif(tmp_path / "ex.tif", picture), tif(tmp_path / "mask.tif", labels[None])
    picture[:, :, :30] = 0
    path = tif(tmp_path / "q.tif", picture, nodata=0)
    answer = incontext("segment", path, "--example", example, mask, "--out", tmp_path / "r")
    assert answer.code == 0, answer.err
    out = export(tmp_path / "r", "geotiff", tmp_path / "geo")
    with rasterio.open(out / "q.tif") as raster:
        values = raster.read(1)
    assert not values[:, :30].any()
    assert values[:, 30:].any()


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


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint32"])
@pytest.mark.parametrize("nodata", [None, 7, 0])
def test_rasters_of_every_width(tmp_path, dtype, nodata):
    ids = np.where(RAMP > 0.5, 300, 0).astype(dtype)
    ids[0] = 7
    [one] = read_examples(rasters(tmp_path, ids, nodata=nodata), images=tmp_path / "in")
    assert (one.labels.ids[0] == (-1 if nodata == 7 else 7)).all()
    assert np.array_equal(one.labels.ids[1:], ids[1:])


IDS = np.zeros((HEIGHT, WIDTH), np.uint8)


@pytest.mark.parametrize(
    ("labels", "profile", "text"),
    [
        (IDS, {"transform": Affine(0.25, 0, 9, 0, -0.25, 9)}, "lies elsewhere on earth than"),
        (IDS, {"crs": "EPSG:32633"}, "lies elsewhere on earth than"),
        (IDS[:9], {}, "labels of 48×9, their picture is 48×40"),
        (IDS + np.float32(0.5), {}, "numbers that are not whole; accepted: ids"),
        (IDS + np.float32(np.nan), {}, "numbers that are not whole; accepted: ids"),
        (IDS, {"compress": "jpeg"}, "JPEG is lossy, its values are not exact"),
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
