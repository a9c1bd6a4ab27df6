"""A video's results in a folder: written frame by frame, gone on with where a run stopped."""

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from incontext.errors import InputError
from incontext.files import atomic, check_same_settings, exclusive
from incontext.inference.segmentation import Segmentation, write_image, write_text
from incontext.labels.coco import encode_rle
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap
from incontext.video.frames import Frames
from incontext.video.monitor import Seen
from incontext.video.overlay import Tell, write_overlay
from incontext.video.predictor import Track

RESULTS, STATE = "results.json", ".run"
OVERLAY = "overlay.mp4"


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
    done: a line for every finished frame, and what was remembered after one of the last.

    Args:
        settings: what decides the results; a folder that holds others is refused.
        overwrite: begin anew.

    Raises:
        InputError: the folder holds results of other settings, or a results.json of something else.
    """

    def __init__(
        self, out: Path, clip: str, settings: Mapping[str, Any], overwrite: bool = False
    ) -> None:
        self.out, self.state, self.overwrite = out, out / STATE, overwrite
        self.settings = json.loads(json.dumps(settings))
        self.folder = out / "Annotations" / clip
        self.lines = self.state / "frames.jsonl"
        self.done = 0
        for path in () if overwrite else (self.state / "settings.json", out / RESULTS):
            before = _settings(path)
            if before is not None:
                remedy = "pass --overwrite, or another folder"
                check_same_settings(before, self.settings, out, remedy)

    @property
    def finished(self) -> bool:
        """Whether all frames were answered before."""
        there = (self.out / RESULTS).is_file() and not self.state.is_dir()
        return there and not self.overwrite

    def follow(self, track: Track, tell: Tell = lambda what, done, total: None) -> Summary:
        """Answer what is not answered yet, then write results.json.

        Raises:
            InputError: frames or labels that cannot be used, a damaged state, or another run is
                writing here; what was finished stays.
            OSError: results cannot be written; what was finished stays.
        """
        if self.overwrite:
            shutil.rmtree(self.state, ignore_errors=True)
            # Masks too: what is not answered this time must not be drawn into the overlay.
            for path in (self.out / RESULTS, self.out / OVERLAY, *self.folder.glob("*.png")):
                path.unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self.state):
            write_text(self.state / "settings.json", json.dumps({"settings": self.settings}))
            self.done = self._go_on(track)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("once")
                self._follow(track, tell)
            if not self.done:
                raise InputError("no frame was answered: none comes after the first labels")
            said = {str(w.message) for w in caught if w.category is UserWarning}
            return self._close(track, sorted(said | set(track.frames.notes)))

    def _follow(self, track: Track, tell: Tell) -> None:
        known = track.memory.changes if self.done else -1
        with self.lines.open("a", encoding="utf-8") as lines:
            for index, result in track:
                changed = track.memory.changes != known
                self._keep(track, index, result, changed, lines)
                if changed:
                    known = track.memory.changes
                tell("segmenting", self.done, track.frames.total)

    def _go_on(self, track: Track) -> int:
        """Take up the state of an earlier run; how many frames it finished."""
        memory = self.state / "memory.npz"
        if not memory.is_file() or not self.lines.is_file():
            self.lines.unlink(missing_ok=True)
            return 0
        try:
            with np.load(memory) as file:
                state = dict(file)
            finished, size, after = self._finished_lines(int(state.pop("finished")), track)
        except Exception as error:  # zip, numpy and json have errors of their own
            raise InputError(
                f"{self.state}: damaged ({type(error).__name__}: {error}); pass --overwrite to "
                "begin anew"
            ) from None
        os.truncate(self.lines, size)
        track.resume(after, state)
        return finished

    def _finished_lines(self, sure: int, track: Track) -> tuple[int, int, int]:
        """How many lines count, how many bytes they are, and the frame of the last one.

        Behind the `sure` ones, which the memory that was kept knows of, those count that did not
        change it. A frame that did, when its memory could not be written any more, is done again,
        to the same result.
        """
        count, size, after = 0, 0, -1
        with self.lines.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):  # cut off
                    break
                entry = json.loads(line)
                if count >= sure and entry["remembered"]:
                    break
                count, size, after = count + 1, size + len(line), entry["index"]
                width, height = entry["size"]
                several = {int(i): Seen(**one["seen"]) for i, one in entry["objects"].items()}
                track.watch.recall(after, several, width * height)
        if count < sure or not count:
            raise ValueError(f"{count} of {sure} frames")
        return count, size, after

    def _keep(
        self, track: Track, index: int, result: Segmentation, changed: bool, lines: Any
    ) -> None:
        """Write one frame: labels, its line, and the memory where it changed; in this order."""
        path = self.folder / f"{self._name(track.frames, index)}.png"
        write_image(result.label_image(), path)
        objects = {
            str(i): {"rle": encode_rle(result.labels == i), "seen": asdict(one)}
            for i, one in track.seen.items()
        }
        entry = {
            "index": index, "file": str(path.relative_to(self.out)),
            "size": [result.picture.width, result.picture.height], "remembered": changed,
            "objects": objects,
        }  # fmt: skip
        lines.write(json.dumps(entry) + "\n")
        lines.flush()
        self.done += 1
        if changed:
            _save_memory(self.state / "memory.npz", track, self.done)

    @staticmethod
    def _name(frames: Frames, index: int) -> str:
        return frames.names[index] if frames.names else f"{index:05d}"

    def _close(self, track: Track, notes: list[str]) -> Summary:
        """results.json from the lines, one at a time: there may be very many."""
        prompt = track.memory.prompt()
        names = prompt.names
        findings = _Findings(names)
        order = []
        with self.lines.open("rb") as lines:
            at = 0
            for line in lines:
                order.append((findings.add(json.loads(line)), at))
                at += len(line)
        look = {frame: findings.why[frame] for frame in track.worth_a_look()}
        head = {
            "settings": self.settings, "notes": notes,
            "ids": {str(i): {"name": names[i], "color": prompt.colors[i]} for i in prompt.ids},
            "worth_a_look": {str(frame): text for frame, text in look.items()},
        }  # fmt: skip
        with (
            atomic(self.out / RESULTS) as draft,
            draft.open("w", encoding="utf-8") as file,
            self.lines.open("rb") as lines,
        ):
            file.write(json.dumps(head, indent=1).removesuffix("\n}") + ',\n "frames": [')
            for number, (_, at) in enumerate(sorted(order)):
                lines.seek(at)
                file.write((",\n  " if number else "\n  ") + lines.readline().decode().strip())
            file.write("\n ]\n}\n")
        return Summary(len(order), findings.found, names, look, notes)

    def draw(
        self, frames: Frames, colors: Mapping[int, Rgb], rate: Fraction,
        tell: Tell = lambda what, done, total: None,
    ) -> Path:  # fmt: skip
        """The overlay as H.264 MP4, in step with the source; frames without an answer as they are.

        Raises: see `write_overlay`.
        """

        def labels(index: int) -> "IdMap | None":
            path = self.folder / f"{self._name(frames, index)}.png"
            if not path.is_file():
                return None
            with Image.open(path) as image:
                return np.asarray(image).astype(np.int32)

        return write_overlay(self.out / OVERLAY, frames, labels, colors, rate, tell)

    def colors(self) -> dict[int, Rgb]:
        """Of the ids, as results.json says."""
        found = json.loads((self.out / RESULTS).read_text(encoding="utf-8"))["ids"]
        return {int(i): tuple(one["color"]) for i, one in found.items()}

    def end(self) -> None:
        """All is done: the state goes."""
        shutil.rmtree(self.state, ignore_errors=True)


class _Findings:
    """What the lines of all frames say together."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names, self.found = names, dict.fromkeys(names, 0)
        self.why: dict[int, str] = {}

    def add(self, entry: Mapping[str, Any]) -> int:
        """One frame; its number."""
        number, said = int(entry["index"]), []
        for text, one in entry["objects"].items():
            index, seen = int(text), one["seen"]
            self.found[index] = self.found.get(index, 0) + (seen["pixels"] > 0)
            if seen["warning"]:
                said.append(f"id {index} ({self.names.get(index, text)}) {seen['warning']}")
        if said:
            self.why[number] = "; ".join(said)
        return number


def _settings(path: Path) -> dict[str, Any] | None:
    """What a run was made with; None where there is none.

    Raises:
        InputError: the file says nothing of it.
    """
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8"))["settings"])
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path}: damaged, or not of `incontext video`; pass --overwrite, or another folder"
        ) from None
    return found


def _save_memory(path: Path, track: Track, finished: int) -> None:
    with atomic(path) as draft, draft.open("wb") as file:
        np.savez(file, finished=finished, **track.memory.state())
