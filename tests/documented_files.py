"""The files that commands and snippets of README and the docs name, small and drawn."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

BOX = np.s_[10:30, 20:50]  # where the object is, in images of 64×48
OBJECT = (200, 190, 90)


def draw(path: Path, seed: int = 0) -> None:
    """Draw a bright object on a dark ground."""
    pixels = np.random.default_rng(seed).integers(0, 60, (48, 64, 3), dtype=np.uint8)
    pixels[BOX] = OBJECT
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def draw_mask(path: Path, value: int) -> None:
    """Draw where it is."""
    mask = np.zeros((48, 64), np.uint8)
    mask[BOX] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def write_pictures(folder: Path) -> None:
    """Write photographs, masks and strokes."""
    names = ("photo.jpg", "other.jpg", "a.jpg", "b.jpg", "pictures/c.jpg", "photos/a.jpg")
    for seed, name in enumerate(names):
        draw(folder / name, seed)
    for name in ("mask.png", "other.png", "first.png"):
        draw_mask(folder / name, 255)
    strokes = np.zeros((48, 64), np.uint8)
    strokes[15:25, 25:45], strokes[35:40, 5:60] = 1, 9
    Image.fromarray(strokes).save(folder / "strokes.png")


def write_annotations(folder: Path) -> None:
    """Write a COCO file of the photographs."""
    polygon = [20, 10, 50, 10, 50, 30, 20, 30]
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "box"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [polygon]}],
    }
    (folder / "annotations.json").write_text(json.dumps(document))


def write_set(folder: Path, count: int) -> None:
    """Write `my-set/` with so many labelled images."""
    for number in range(count):
        draw(folder / f"my-set/images/{number}.jpg", number)
        draw_mask(folder / f"my-set/labels/{number}.png", 1)


def write_clip(folder: Path, frames: int = 9) -> None:
    """Write a video."""
    from incontext.video.video_file import writer

    with writer(folder / "clip.mp4", (64, 48), Fraction(25)) as write:
        for _ in range(frames):
            write(Image.open(folder / "photo.jpg"), None)


def write_maps(folder: Path) -> None:
    """Write GeoTIFF images and a mask."""
    import rasterio
    from rasterio.transform import from_origin

    profile = {
        "driver": "GTiff", "height": 48, "width": 64, "count": 3, "dtype": "uint8",
        "crs": "EPSG:32632", "transform": from_origin(500_000, 5_400_000, 0.5, 0.5),
    }  # fmt: skip
    pixels = np.asarray(Image.open(folder / "photo.jpg")).transpose(2, 0, 1)
    (folder / "tiles").mkdir()
    for name in ("tile.tif", "tiles/field.tif"):
        with rasterio.open(folder / name, "w", **profile) as file:
            file.write(pixels)
    Image.open(folder / "mask.png").save(folder / "mask.tif")


def write_scans(folder: Path) -> None:
    """Write volumes and a DICOM series."""
    from tests.images.volumes import drawn_ids, drawn_scan, nifti, series

    ids = drawn_ids()
    for name in ("scan.nii.gz", "scans/scan.nii.gz", "scans/next.nii.gz", "others/next.nii.gz"):
        nifti(folder / name, drawn_scan(ids))
    nifti(folder / "labels.nii.gz", ids)
    series(folder / "series", drawn_scan(ids))
