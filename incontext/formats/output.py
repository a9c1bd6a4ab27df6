"""Output of an export: what may be overwritten, and the images that a format keeps."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from incontext.errors import InputError
from incontext.files import atomic
from incontext.images.dicom import is_dicom
from incontext.images.image import read_image
from incontext.images.image_file import is_upright
from incontext.images.volume import SlicePath, picture_file

NOT_IN_UTF8 = re.compile("[\ud800-\udfff]")  # bytes of file names that are no text, too
NOT_IN_XML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
JPEG_SUFFIXES = (".jfif", ".jpe", ".jpeg", ".jpg")
GENERATOR = "written by incontext export"  # noted in files whose format has a place for it


def check_text(text: str, use: str, *, xml: bool = False) -> str:
    """Return a text that a file of another tool can hold.

    Args:
        use: what the text is, for the message.
        xml: refuse the control characters too that XML has no way to write.

    Raises:
        InputError: it cannot be stored.
    """
    characters = NOT_IN_XML if xml else NOT_IN_UTF8
    if characters.search(text):
        kind = "XML" if xml else "a text file"
        raise InputError(f"{use} {text!a} has characters that {kind} cannot hold; rename it")
    return text


def check_output(out: Path, files: Sequence[Path], overwrite: bool) -> None:
    """Raise InputError if an export would replace or mix with what is there already.

    Args:
        out: file or folder that is exported to.
        files: the files of a format that has a fixed number of them; none for a folder.
        overwrite: allow it; files of other names stay in a folder even then.
    """
    if overwrite:
        return
    existing = [path for path in files if path.exists() or path.is_symlink()]
    if not existing and out.is_dir() and any(out.iterdir()):
        existing = [out]
    if existing:
        problem = "is not empty" if existing[0].is_dir() else "exists"
        raise InputError(
            f"{existing[0]} {problem}; choose another --out, or pass overwrite (--overwrite)"
        )


def place_image(source: Path, base: Path) -> Path:
    """Put an image at `base` with its own suffix, so that readers without EXIF see it upright.

    An image that is stored upright is linked. Others are written anew, JPEG as JPEG of a high
    quality, the rest as PNG: labels lie on the upright image. Slices of volumes and DICOM, which
    other tools do not show, are PNG too.

    Returns:
        The path, with a suffix.

    Raises:
        InputError: the image does not exist any more, or would be replaced itself.
        OSError: it cannot be written.
    """
    _check_present(source)
    target = base.with_name(base.name + source.suffix)
    medical = SlicePath.parse(source) is not None or is_dicom(source)
    if not medical and is_upright(source):
        return link(source, target)
    is_jpeg = not medical and source.suffix.lower() in JPEG_SUFFIXES
    if not is_jpeg:
        target = base.with_name(f"{base.name}.png")
    if (target.parent.resolve() / target.name) == (source.parent.resolve() / source.name):
        raise InputError(f"{target} is the segmented picture itself; choose another --out")
    image = read_image(source)
    with atomic(target) as draft:
        if is_jpeg:
            image.save(draft, "JPEG", quality=95, subsampling=0)
        else:
            image.save(draft, "PNG")
    return target


def check_not_source(path: Path, source: Path) -> None:
    """Raise InputError if a file to write is the very image that was segmented.

    This holds with `overwrite` too: nobody means to replace an image by its labels.
    """
    if path.exists() and source.exists() and path.samefile(source):
        raise InputError(f"{path} is the segmented picture itself; choose another --out")


def _check_present(source: Path) -> None:
    if not picture_file(source).is_file():
        raise InputError(
            f"{source}: the picture is gone, and the format keeps pictures too; put it back, or "
            "drop it from the results: incontext segment … --prune"
        )


def link(source: Path, target: Path) -> Path:
    """Make a file available at `target`: as a hard link, else a symbolic link, else a copy.

    Raises:
        InputError: the source does not exist any more.
        OSError: none of the three is possible.
    """
    _check_present(source)
    # A symbolic link in place of the file that it points to would lose the image.
    if target.exists() and target.samefile(source):
        return target
    with atomic(target) as draft:
        draft.unlink(missing_ok=True)  # of a writer that was killed
        try:
            os.link(source.resolve(), draft)  # not a link to a link, which may be relative
        except OSError:  # another device, or a file system without links
            try:
                draft.symlink_to(source.resolve(strict=True))
            except (OSError, NotImplementedError):
                shutil.copyfile(source, draft)
    return target
