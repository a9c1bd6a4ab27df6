"""Output of an export: what may be overwritten, and the images that a format keeps."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from incontext.errors import InputError
from incontext.files import atomic

NOT_IN_UTF8 = re.compile("[\ud800-\udfff]")  # bytes of file names that are no text, too
NOT_IN_XML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
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


def check_not_source(path: Path, source: Path) -> None:
    """Raise InputError if a file to write is the very image that was segmented.

    This holds with `overwrite` too: nobody means to replace an image by its labels.
    """
    if path.exists() and source.exists() and path.samefile(source):
        raise InputError(f"{path} is the segmented picture itself; choose another --out")


def link(source: Path, target: Path) -> Path:
    """Make a file available at `target`: as a hard link, else a symbolic link, else a copy.

    Raises:
        InputError: the source does not exist any more.
        OSError: none of the three is possible.
    """
    if not source.is_file():
        raise InputError(f"{source}: the picture is gone, and the format keeps pictures too")
    # A symbolic link in place of the file that it points to would lose the image.
    if target.exists() and target.samefile(source):
        return target
    with atomic(target) as draft:
        draft.unlink(missing_ok=True)  # of a writer that was killed
        try:
            os.link(source, draft)
        except OSError:  # another device, or a file system without links
            try:
                draft.symlink_to(source.resolve(strict=True))
            except (OSError, NotImplementedError):
                shutil.copyfile(source, draft)
    return target
