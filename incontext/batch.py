"""Folders of pictures: find targets, segment what is not finished yet, report every file."""

import errno
import glob
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from incontext.errors import InputError
from incontext.image import SUFFIXES, read_image
from incontext.predictor import Predictor
from incontext.prompt import Prompt
from incontext.segmentation import Segmentation

RESULTS = "results.json"
BATCH_PIXELS = 50_000_000  # pictures are held in memory until so many are read
SAVE_EVERY = 10.0  # seconds between rewrites of results.json


@dataclass(frozen=True)
class Target:
    """A picture to segment, and the name of its results below the output folder."""

    path: Path
    name: str


def find_targets(sources: Sequence[str | Path], out: Path) -> list[Target]:
    """Pictures behind files, folders (searched to any depth) and glob patterns.

    Names keep the structure below the folder that was given. Where two would be the same, each
    takes its suffix into its name; what still collides is refused.

    Raises:
        InputError: a source without a picture, or two pictures with one name.
    """
    found: dict[Path, str] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            pairs = [(p, str(p.relative_to(path))) for p in inside if p.is_file()]
        elif path.exists():
            pairs = [(path, path.name)]
        else:
            matches = sorted(Path(p) for p in glob.glob(str(source), recursive=True))
            pairs = [(p, p.name) for p in matches if p.is_file()]
        if not pairs:
            raise InputError(f"{source}: no such file, or no picture in it")
        # Results of an earlier run are no targets, also where `out` lies inside a target folder.
        pairs = [(p, name) for p, name in pairs if not _inside(p, out)]
        if not pairs:
            raise InputError(
                f"{source}: lies in the output folder {out}, where results are kept apart from "
                "pictures; pass another --out"
            )
        for p, name in pairs:
            found.setdefault(p.resolve(), name)
    stems: dict[str, int] = {}
    for name in found.values():
        stem = str(Path(name).with_suffix(""))
        stems[stem] = stems.get(stem, 0) + 1
    targets = []
    taken: dict[str, Path] = {}
    for p, name in found.items():
        plain = Path(name)
        stem = str(plain.with_suffix(""))
        # "a.confidence" would be written where the confidence of "a" is.
        clear = stems[stem] == 1 and not stem.endswith(".confidence")
        unique = stem if clear else f"{stem}_{plain.suffix[1:]}"
        if unique in taken:
            raise InputError(
                f"{p} and {taken[unique]} would both be written as {unique}; give their common "
                "folder, or segment them into different folders"
            )
        taken[unique] = p
        targets.append(Target(p, unique))
    return targets


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, first 16 hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@dataclass
class Manifest:
    """`results.json`: the settings of a run, and an entry for every finished or failed file."""

    folder: Path
    settings: dict[str, Any]
    ids: dict[str, Any]
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    overwrite: bool = False  # nothing counts as finished
    saved: float = 0.0

    @classmethod
    def open(
        cls, folder: Path, settings: dict[str, Any], prompt: Prompt, overwrite: bool
    ) -> "Manifest":
        """Start a manifest, or go on with the one in the folder.

        With `overwrite` entries of the same settings stay too, until their picture is done again;
        those of other settings, or of a damaged file, are dropped.

        Raises:
            InputError: it was made with other settings, or is damaged.
        """
        ids = {str(i): {"name": prompt.names[i], "color": prompt.colors[i]} for i in prompt.ids}
        manifest = cls(folder, json.loads(json.dumps(settings)), ids, overwrite=overwrite)
        path = folder / RESULTS
        if not path.exists():
            return manifest
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            known, results = dict(before["settings"]), dict(before["results"])
            for entry in results.values():
                _ = entry["source"], entry["size"], dict(entry["files"])
                _ = [entry["ids"][index]["pixels"] for index in before["ids"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if overwrite:
                return manifest
            raise InputError(
                f"{path}: damaged ({type(error).__name__}: {error}); delete it, or pass "
                "overwrite (--overwrite)"
            ) from None
        changed = sorted(
            key
            for key in known.keys() | manifest.settings.keys()
            if known.get(key) != manifest.settings.get(key)
        )
        if changed and overwrite:
            return manifest
        if changed and results:
            raise InputError(
                f"{folder} holds results made with other settings ({', '.join(changed)}); pass "
                "overwrite (--overwrite), or another folder"
            )
        manifest.results = results
        return manifest

    def finished(self, target: Target) -> bool:
        """Whether this very file was done and all that was written for it is still there.

        Raises:
            InputError: the name is taken by the results of another picture.
        """
        entry = self.results.get(target.name)
        if entry and not self.overwrite and entry["source"]["path"] != str(target.path):
            raise InputError(
                f"{self.folder} holds results named {target.name} of another picture, "
                f"{entry['source']['path']}; pass another folder for {target.path}, or "
                "overwrite (--overwrite)"
            )
        if self.overwrite or not entry or entry["source"] != fingerprint(target.path):
            return False
        return all((self.folder / name).is_file() for name in entry["files"].values())

    def fail(self, target: Target, text: str) -> None:
        """Note what kept a file from being done; results of it from an earlier run are void."""
        self.failed[str(target.path)] = text
        self.results.pop(target.name, None)

    def save(self, at_once: bool = True) -> None:
        """Write `results.json`, whole or not at all; unless `at_once`, only now and then."""
        if not at_once and time.monotonic() - self.saved < SAVE_EVERY:
            return
        self.saved = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f".{RESULTS}.part"
        draft.write_text(
            json.dumps(
                {"settings": self.settings, "ids": self.ids, "results": self.results,
                 "failed": self.failed}, indent=1,
            ), encoding="utf-8",
        )  # fmt: skip
        os.replace(draft, self.folder / RESULTS)


def fingerprint(path: Path) -> dict[str, Any]:
    """What tells a file from an edited or another one, without reading it."""
    status = path.stat()
    return {"path": str(path), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def describe(result: Segmentation, source: dict[str, Any], files: dict[str, Path], folder: Path,
             notes: list[str]) -> dict[str, Any]:  # fmt: skip
    """Entry of one picture in `results.json`: size, files, and for each id area and presence."""
    entry: dict[str, Any] = {
        "source": source,
        "size": [result.picture.width, result.picture.height],
        "files": {what: str(path.relative_to(folder)) for what, path in files.items()},
        "confidence": round(float(result.confidence.mean()), 4),
        "ids": {
            str(index): {"pixels": int(result.mask(index).sum()), "presence": round(presence, 4)}
            for index, presence in result.presence.items()
        },
    }
    return {**entry, "notes": notes} if notes else entry


def segment_files(
    predictor: Predictor,
    prompt: Prompt,
    targets: Iterable[Target],
    manifest: Manifest,
    *,
    tell: Callable[[Target, str], None] = lambda target, text: None,
    batch_size: int = 8,
    **options: Any,
) -> None:
    """Segment targets, write their files, keep the manifest. A bad picture does not stop the rest.

    Args:
        tell: called once for every target, with "" or with what went wrong.
        options: of `Predictor.predict`.

    Raises:
        OSError: results cannot be written; what was finished stays.
    """
    manifest.save()  # a folder that cannot be written shows before the work, not after it
    try:
        for batch in _readable(targets, manifest, tell, batch_size):
            # One result at a time: those of huge pictures are larger than the pictures.
            pictures = (read.picture for read in batch)
            results = predictor.predict(pictures, prompt, batch_size=batch_size, **options)
            for read, result in zip(batch, results, strict=True):
                try:
                    files = result.save(manifest.folder, read.target.name)
                except OSError as error:
                    if error.errno != errno.ENAMETOOLONG:  # a full disk: the rest will not fit
                        raise
                    text = f"{read.target.path}: the name is too long to name results after it"
                    manifest.fail(read.target, text)
                    tell(read.target, text)
                    continue
                manifest.results[read.target.name] = describe(
                    result, read.source, files, manifest.folder, read.notes
                )
                tell(read.target, "")
            manifest.save(at_once=False)
    finally:
        manifest.save()


@dataclass(frozen=True)
class _Read:
    """A target whose picture could be read; `source` is the file as it was then."""

    target: Target
    source: dict[str, Any]
    picture: Image.Image
    notes: list[str]


def _readable(
    targets: Iterable[Target],
    manifest: Manifest,
    tell: Callable[[Target, str], None],
    batch_size: int,
) -> Iterator[list[_Read]]:
    """Batches of pictures that could be read; the others go to the manifest's failures."""
    batch: list[_Read] = []
    for target in targets:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                # Before reading: a file edited in between counts as changed the next time.
                source = fingerprint(target.path)
                picture = read_image(target.path)
            except (InputError, OSError, MemoryError) as error:
                text = str(error) or type(error).__name__
                manifest.fail(target, text)
                tell(target, text)
                continue
        notes = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
        batch.append(_Read(target, source, picture, notes))
        pixels = sum(read.picture.width * read.picture.height for read in batch)
        if len(batch) == batch_size or pixels > BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch
