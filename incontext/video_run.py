"""A video's results in a folder: written frame by frame, gone on with where a run stopped."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from incontext.coco import encode_rle
from incontext.color_mask import Rgb
from incontext.drift import Seen, Watch, worth_a_look
from incontext.errors import InputError
from incontext.frames import Frames
from incontext.segmentation import Segmentation, overlay, write_image
from incontext.video import Track

RESULTS, STATE = "results.json", ".run"
OVERLAY = "overlay.mp4"
Tell = Callable[[str, int, int | None], None]  # what is being done, how far, of how much


@dataclass(frozen=True)
class Summary:
    """What a run came to: `look` are frames worth annotating anew, with the reasons."""

    frames: int
    found: dict[int, int]
    names: dict[int, str]
    look: dict[int, str]
    notes: list[str]


class VideoRun:
    """OUT/Annotations/CLIP/FRAME.png in DAVIS layout, OUT/results.json, OUT/overlay.mp4.

    Each file appears whole or not at all. What a run needs to go on lies in OUT/.run until it is
    done: a line for every finished frame, and the memory after the last one.

    Args:
        settings: what decides the results; a folder that holds others is refused.
        overwrite: begin anew.

    Raises:
        InputError: the folder holds results of other settings.
    """

    def __init__(
        self, out: Path, clip: str, settings: Mapping[str, Any], overwrite: bool = False
    ) -> None:
        self.out, self.state = out, out / STATE
        self.settings = json.loads(json.dumps(settings))
        self.folder = out / "Annotations" / clip
        self.lines = self.state / "frames.jsonl"
        if overwrite:
            shutil.rmtree(self.state, ignore_errors=True)
            # Masks too: what is not answered this time must not be drawn into the overlay.
            for path in (out / RESULTS, out / OVERLAY, *self.folder.glob("*.png")):
                path.unlink(missing_ok=True)
        before = _settings(self.state / "settings.json") or _settings(out / RESULTS)
        if before is not None and before != self.settings:
            keys = self.settings.keys() | before.keys()
            changed = [k for k in sorted(keys) if before.get(k) != self.settings.get(k)]
            raise InputError(
                f"{out} holds results made with other settings ({', '.join(changed)}); pass "
                "--overwrite, or another folder"
            )

    @property
    def finished(self) -> bool:
        """Whether all of it was done before."""
        return (self.out / RESULTS).is_file() and not self.state.is_dir()

    def follow(self, track: Track, tell: Tell = lambda what, done, total: None) -> Summary:
        """Answer what is not answered yet, then write the rest.

        Raises:
            InputError: frames or labels that cannot be used; what was finished stays.
            OSError: results cannot be written; what was finished stays.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)
        _write(self.state / "settings.json", json.dumps({"settings": self.settings}).encode())
        self.watch, self.done = Watch(), 0
        self.done = self._go_on(track)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with self.lines.open("a", encoding="utf-8") as lines:
                for index, result in track:
                    seen = self.watch.look(result, track.trust, track.given(index))
                    self._keep(track, index, result, seen, lines)
                    tell("segmenting", self.done, track.frames.total)
            notes = sorted({str(w.message) for w in caught if w.category is UserWarning})
        if not self.done:
            raise InputError("no frame was answered: none comes after the first labels")
        return self._close(track, notes)

    def _go_on(self, track: Track) -> int:
        """Take up the state of an earlier run; how many frames it finished."""
        memory = self.state / "memory.npz"
        if not memory.is_file() or not self.lines.is_file():
            self.lines.unlink(missing_ok=True)
            return 0
        try:
            state = dict(np.load(memory))
            after, finished = int(state.pop("after")), int(state.pop("finished"))
            kept = self.lines.read_text(encoding="utf-8").splitlines()[:finished]
            entries = [json.loads(line) for line in kept]
            if len(entries) != finished:
                raise ValueError(f"{len(entries)} lines for {finished} frames")
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{self.state}: damaged ({error}); pass --overwrite to begin anew"
            ) from None
        # A frame that was written after the memory was is done again, to the same result.
        _write(self.lines, "".join(f"{line}\n" for line in kept).encode())
        for entry in entries[-64:]:
            width, height = entry["size"]
            several = {int(i): Seen(**one["seen"]) for i, one in entry["objects"].items()}
            self.watch.recall(several, width * height)
        track.resume(after, state)
        return finished

    def _keep(
        self, track: Track, index: int, result: Segmentation, seen: Mapping[int, Seen], lines: Any
    ) -> None:
        """Write one frame: labels, its line, the memory behind it; in this order."""
        path = self.folder / f"{self._name(track.frames, index)}.png"
        write_image(result.label_image(), path)
        objects = {
            str(i): {"rle": encode_rle(result.labels == i), "seen": asdict(one)}
            for i, one in seen.items()
        }
        entry = {
            "index": index, "file": str(path.relative_to(self.out)),
            "size": [result.picture.width, result.picture.height], "objects": objects,
        }  # fmt: skip
        lines.write(json.dumps(entry) + "\n")
        lines.flush()
        self.done += 1
        _save_memory(self.state / "memory.npz", track, index, self.done)

    @staticmethod
    def _name(frames: Frames, index: int) -> str:
        return frames.names[index] if frames.names else f"{index:05d}"

    def _close(self, track: Track, notes: list[str]) -> Summary:
        """results.json from the lines, one at a time: there may be very many."""
        prompt, names = track.memory.prompt(), track.memory.prompt().names
        findings = _Findings(names)
        order = []
        with self.lines.open("rb") as lines:
            at = 0
            for line in lines:
                order.append((findings.add(json.loads(line)), at))
                at += len(line)
        look = findings.look()
        head = {
            "settings": self.settings, "notes": notes,
            "ids": {str(i): {"name": names[i], "color": prompt.colors[i]} for i in prompt.ids},
            "worth_a_look": {str(frame): text for frame, text in look.items()},
        }  # fmt: skip
        draft = self.out / f".{RESULTS}.part"
        try:
            with draft.open("w", encoding="utf-8") as file, self.lines.open("rb") as lines:
                file.write(json.dumps(head, indent=1).removesuffix("\n}") + ',\n "frames": [')
                for number, (_, at) in enumerate(sorted(order)):
                    lines.seek(at)
                    file.write((",\n  " if number else "\n  ") + lines.readline().decode().strip())
                file.write("\n ]\n}\n")
            os.replace(draft, self.out / RESULTS)
        finally:
            draft.unlink(missing_ok=True)
        return Summary(len(order), findings.found, names, look, notes)

    def draw(
        self, frames: Frames, colors: Mapping[int, Rgb], rate: Fraction,
        tell: Tell = lambda what, done, total: None,
    ) -> Path:  # fmt: skip
        """The overlay as H.264 MP4, in step with the source; frames without an answer as they are.

        Raises:
            InputError: PyAV is missing.
            OSError: it cannot be written.
        """
        from incontext.movie import Movie, writer

        path = self.out / OVERLAY
        base = frames.time_base if isinstance(frames, Movie) else None
        with warnings.catch_warnings(), ExitStack() as stack:
            warnings.simplefilter("ignore")  # noted when the frames were answered
            write = None
            for index, picture in frames.forward():
                write = write or stack.enter_context(writer(path, picture.size, rate, base))
                drawn = picture
                labels = self.folder / f"{self._name(frames, index)}.png"
                if labels.is_file():
                    with Image.open(labels) as image:
                        drawn = overlay(picture, np.asarray(image).astype(np.int32), colors)
                write(drawn, frames.pts if isinstance(frames, Movie) else None)
                tell("writing the overlay", index + 1, frames.total)
        return path

    def end(self) -> None:
        """All is done: the state goes."""
        shutil.rmtree(self.state, ignore_errors=True)


class _Findings:
    """What the lines of all frames say together."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names, self.found = names, dict.fromkeys(names, 0)
        self.why: dict[int, list[str]] = {}
        self.bad: dict[int, float] = {}

    def add(self, entry: Mapping[str, Any]) -> int:
        """One frame; its number."""
        number = int(entry["index"])
        for text, one in entry["objects"].items():
            index, seen = int(text), one["seen"]
            self.found[index] = self.found.get(index, 0) + (seen["pixels"] > 0)
            if seen["warning"]:
                said = f"{self.names.get(index, text)}: {seen['warning']}"
                self.why.setdefault(number, []).append(said)
                self.bad[number] = self.bad.get(number, 0) + 2 - seen["confidence"]
        return number

    def look(self) -> dict[int, str]:
        """Frames worth annotating anew, with the reasons."""
        return {frame: "; ".join(self.why[frame]) for frame in worth_a_look(self.bad)}


def _settings(path: Path) -> dict[str, Any] | None:
    """What a run was made with, None where there is none or it cannot be told."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.part")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _save_memory(path: Path, track: Track, after: int, finished: int) -> None:
    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("wb") as file:
            np.savez(file, after=after, finished=finished, **track.memory.state())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
