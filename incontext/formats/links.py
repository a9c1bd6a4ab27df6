"""Links: pictures that a format wants beside its labels, without the bytes a second time."""

import os
import shutil
from pathlib import Path

from incontext.errors import InputError


def link(source: Path, target: Path) -> Path:
    """Have a file at `target` too: a hard link; where there can be none a symbolic one, or a copy.

    Raises:
        InputError: there is no such file any more.
        OSError: none of them can be made.
    """
    if not source.is_file():
        raise InputError(f"{source}: the picture is gone, and the format keeps pictures too")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.part")
    draft.unlink(missing_ok=True)
    try:
        try:
            os.link(source, draft)
        except OSError:  # another device, or a file system without links
            try:
                draft.symlink_to(source.resolve(strict=True))
            except (OSError, NotImplementedError):
                shutil.copyfile(source, draft)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)  # replacing a link of the same file leaves both
    return target
