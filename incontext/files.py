"""Files: text and XML as others write them, files written whole or not at all, locked while in use,
and the settings they were made with."""

import codecs
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

from incontext.errors import InputError, first_line

LOCK = ".lock"
# UTF-32 first: its mark of little endian begins with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
TRIES = 1000  # to lock a folder that other runs remove when empty; then the error is raised


def _marked_encoding(content: bytes) -> str | None:
    """Return the encoding that a byte order mark names; None without one."""
    return next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), None)


def decode_text(content: bytes, errors: str = "strict") -> str:
    """Decode UTF-8, or UTF-16 and UTF-32 with a byte order mark, which is left out.

    Raises:
        UnicodeDecodeError: it is neither (a ValueError).
    """
    return content.decode(_marked_encoding(content) or "utf-8", errors)


def read_text(path: Path) -> str:
    """Read a text file; see `decode_text`.

    Raises:
        InputError: it is in another encoding.
    """
    try:
        return decode_text(path.read_bytes())
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: no text in UTF-8, nor in UTF-16 with a byte order mark ({first_line(error)})"
        ) from None


def read_xml(path: Path) -> ElementTree.Element:
    """Read the root of an XML file; a byte order mark counts more than the declaration.

    Raises:
        InputError: not XML, or in an unknown encoding.
    """
    content = path.read_bytes()
    try:
        text = content if _marked_encoding(content) is None else decode_text(content)
        return ElementTree.fromstring(text)
    # An unknown encoding is a LookupError; a ValueError if it has several bytes for a character.
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: no XML that can be read ({first_line(error)})") from None


def draft_path(path: Path) -> Path:
    """Return where `atomic` writes a file before it takes its place."""
    return path.with_name(f".{path.name}.part")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield the path of a draft that replaces `path` at the end of the block.

    The file appears whole or not at all: after an error the draft is removed and the old file
    stays. The folder is created if necessary.

    Raises:
        OSError: the folder cannot be created, or the draft cannot take the file's place.
    """
    path = Path(path)
    draft = draft_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with name_errors(path):
            yield draft
            os.replace(draft, path)
    finally:
        # Also after success: replacing a file by a hard link to itself leaves both names.
        with suppress(OSError):
            draft.unlink()


@contextmanager
def name_errors(path: str | Path) -> Iterator[None]:
    """Let errors of the system that name no file, such as that of a full disk, name this one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of settings that differ, sorted; one that is missing counts as None."""
    return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))


def check_same_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], where: str | Path, remedy: str
) -> None:
    """Raise InputError if a folder holds a run with other settings.

    Args:
        where: the folder.
        remedy: what the user can do about it, the end of the message.
    """
    changed = changed_settings(before, now)
    if changed:
        raise InputError(
            f"{where} holds a run made with other settings ({', '.join(changed)}); {remedy}"
        )


def try_lock(file: IO[Any]) -> bool:
    """Lock an open file until it is closed; return False if another process holds the lock.

    Where the system or the file system has no locks, every attempt succeeds.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows; some network file systems
        pass
    return True


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file."""
    try:
        with path.open("r+b") as file:  # network file systems lock only what may be written
            return not try_lock(file)
    except OSError:
        return False


@contextmanager
def exclusive(folder: str | Path | None) -> Iterator[None]:
    """Allow one run at a time in a folder, where the system has file locks; None: no folder.

    Raises:
        InputError: another run is using the folder.
    """
    if folder is None:
        yield
        return
    with _lock_folder(Path(folder)):
        yield


def _lock_folder(folder: Path) -> IO[str]:
    attempts = 0
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / LOCK).open("w")
        except (FileNotFoundError, FileExistsError):  # another run removed a folder just now
            attempts += 1
            if attempts == TRIES:
                raise
            continue
        if not try_lock(file):
            file.close()
            raise InputError(f"another run is using {folder}; wait for it, or stop it")
        if os.name != "posix" or os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # the run before removed it between our opening and locking it
