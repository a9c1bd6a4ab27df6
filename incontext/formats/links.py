"""Links: pictures that a format wants beside its labels, without the bytes a second time."""

import os
import shutil
from pathlib import Path

from incontext.errors import InputError
from incontext.files import atomic


def link(source: Path, target: Path) -> Path:
    """Have a file at `target` too: a hard link; where there can be none a symbolic one, or a copy.

    Raises:
        InputError: there is no such file any more.
        OSError: none of them can be made.
    """
    if not source.is_file():
        raise InputError(f"{source}: the picture is gone, and the format keeps pictures too")
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
