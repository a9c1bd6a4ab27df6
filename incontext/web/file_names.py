"""File names as clients gave them, for answers; on disk and in zips files get safe names."""

import re
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path, PurePosixPath
from typing import Any


def client_names(names: Iterable[str | None]) -> list[str]:
    """Return what answers call images: the client's names, each once.

    A path that leads out of its folder loses its folders; a name that was there gets a number.
    """
    unique = list[str]()
    for given in names:
        name = str(given or "picture")
        parts = re.split(r"[/\\]", name)
        if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
            name = parts[-1] or "picture"
        path, candidate, number = PurePosixPath(name), name, 1
        while candidate in unique:
            number += 1
            candidate = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        unique.append(candidate)
    return unique


def client_name(file: str | Path) -> str:
    """Return the client's name of a file that came through a form of Gradio."""
    return str(getattr(file, "client_name", "") or Path(file).name)


def keep_client_names(read: Callable[..., Any]) -> Callable[..., Any]:
    """Let a file component's `preprocess` keep names, of which Gradio drops many characters."""

    @wraps(read)
    def preprocess(self: Any, payload: Any) -> Any:
        value = read(self, payload)
        paths = value if isinstance(value, list) else [value]
        uploads = [payload] if hasattr(payload, "orig_name") else list(payload or [])
        for path, upload in zip(paths, uploads, strict=False):
            if hasattr(path, "__dict__"):  # a str of Gradio's own, which can carry it
                path.client_name = upload.orig_name
        return value

    return preprocess
