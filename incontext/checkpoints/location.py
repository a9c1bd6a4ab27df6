"""Location: where the weights of a bundled name, a folder, a file or a hub id are.

Without torch, so that commands can check what they were given before they import it.
"""

from pathlib import Path

from incontext.checkpoints import hub
from incontext.errors import InputError

BUNDLED = Path(__file__).parent / "weights"
DEFAULT = "incontext-votes"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
# Hub repositories that do not hold a `model.safetensors`.
HUB_FILES = {"BAAI/SegGPT": "seggpt_vit_large.pth"}
KNOWN_HUB = ("BAAI/SegGPT", "BAAI/seggpt-vit-large")


def bundled() -> list[str]:
    """Return the names of the checkpoints that come with the package."""
    return sorted(p.parent.name for p in BUNDLED.glob(f"*/{WEIGHTS}"))


def display_name(source: str | Path) -> str:
    """Return a checkpoint's name: a bundled name or hub id as it is, the last part of a path."""
    text, path = str(source), Path(source)
    if not path.exists() and text.count("/") < 2 and text[:1] not in "./~":
        return text
    path = path.resolve()
    return path.parent.name if path.name == WEIGHTS else path.name


def locate(source: str | Path, *, local_files_only: bool = False) -> Path:
    """Return the weights file of a name, folder, file or hub id; see `checkpoint.load`."""
    name = str(source)
    if name in bundled():
        return BUNDLED / name / WEIGHTS
    path = Path(source)
    if path.is_dir():
        if (path / WEIGHTS).is_file():
            return path / WEIGHTS
        raise InputError(f"{path}: the folder holds no {WEIGHTS}")
    if path.is_file():
        return path
    if path.suffix in (".pth", ".safetensors"):
        raise InputError(f"{path}: no such file")
    parts = name.split("/")
    if len(parts) == 2 and all(parts):
        return hub.fetch(name, HUB_FILES.get(name, WEIGHTS), CONFIG, local_files_only)
    raise InputError(
        f"no checkpoint {name!r}; accepted: {', '.join(bundled())}, a folder, a .safetensors or "
        f".pth file, or a hub id such as {' or '.join(KNOWN_HUB)}"
    )
