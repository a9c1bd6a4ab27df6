"""Video run: results in a folder, written frame by frame, continued where a run stopped."""

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

from incontext.errors import InputError
from incontext.files import atomic, check_same_settings, exclusive
from incontext.images.image_file import open_file
from incontext.inference.segmentation import Segmentation, write_image, write_text
from incontext.labels.coco import encode_rle
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap
from incontext.video.frames import Frames
from incontext.video.monitor import ObjectStats
from incontext.video.overlay import OnProgress, write_overlay
from incontext.video.track import Track

RESULTS, STATE = "results.json", ".run"
OVERLAY = "overlay.mp4"


@dataclass(frozen=True)
class Summary:
    """What a run found.

    Attributes:
        frames: how many there are.
        frame_counts: number of frames that show an id.
        names: of the ids.
        review: frames that should be reviewed, with the reasons.
        notes: warnings.
    """

    frames: int
    frame_counts: dict[int, int]
    names: dict[int, str]
    review: dict[int, str]
    notes: list[str]


class VideoRun:
    """A run that writes OUT/Annotations/CLIP/FRAME.png in DAVIS layout, OUT/results.json and
    OUT/overlay.mp4.

    Each file appears whole or not at all. What a run needs to continue lies in OUT/.run until it
    is complete: a line for every finished frame, and the memory after one of the last.

    Args:
        settings: what decides the results; a folder with others is refused.
        overwrite: start over.

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
        self.done_count = 0
        for path in () if overwrite else (self.state / "settings.json", out / RESULTS):
            before = _read_settings(path)
            if before is not None:
                remedy = "pass --overwrite, or another folder"
                check_same_settings(before, self.settings, out, remedy)

    @property
    def complete(self) -> bool:
        """True if an earlier run segmented all frames."""
        complete = (self.out / RESULTS).is_file() and not self.state.is_dir()
        return complete and not self.overwrite

    def follow(
        self, track: Track, on_progress: OnProgress = lambda stage, done, total: None
    ) -> Summary:
        """Segment the frames that are left, then write results.json.

        Raises:
            InputError: frames or labels that cannot be used, a damaged state, or another run is
                writing here; what was finished stays.
            OSError: results cannot be written; what was finished stays.
        """
        if self.overwrite:
            shutil.rmtree(self.state, ignore_errors=True)
            # Masks too: what is not segmented this time must not be drawn into the overlay.
            for path in (self.out / RESULTS, self.out / OVERLAY, *self.folder.glob("*.png")):
                path.unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self.state):
            write_text(self.state / "settings.json", json.dumps({"settings": self.settings}))
            self.done_count = self._resume(track)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("once")
                self._follow(track, on_progress)
            if not self.done_count:
                raise InputError("no frame was answered: none comes after the first labels")
            notes = {str(w.message) for w in caught if w.category is UserWarning}
            return self._write_results(track, sorted(notes | set(track.frames.notes)))

    def _follow(self, track: Track, on_progress: OnProgress) -> None:
        memory = track.memory
        changes, checks = memory.changes if self.done_count else -1, memory.checks
        with self.lines.open("a", encoding="utf-8") as lines:
            for index, result in track:
                events = {
                    "remembered": memory.changes != changes, "checked": memory.checks != checks,
                }  # fmt: skip
                self._write_frame(track, index, result, events, lines)
                changes, checks = memory.changes, memory.checks
                on_progress("segmenting", self.done_count, track.frames.total)

    def _resume(self, track: Track) -> int:
        """Load the state of an earlier run; returns the number of frames that it finished."""
        memory = self.state / "memory.npz"
        if not memory.is_file() or not self.lines.is_file():
            self.lines.unlink(missing_ok=True)
            return 0
        try:
            with np.load(memory) as file:
                state = dict(file)
            count, size, after = self._finished_lines(int(state.pop("finished")), track)
        except Exception as error:  # zip, numpy and json have errors of their own
            raise InputError(
                f"{self.state}: damaged ({type(error).__name__}: {error}); pass --overwrite to "
                "begin anew"
            ) from None
        os.truncate(self.lines, size)
        track.resume(after, state)
        return count

    def _finished_lines(self, min_count: int, track: Track) -> tuple[int, int, int]:
        """Return how many lines are valid, their size in bytes, and the frame of the last one.

        The saved memory covers the first `min_count` lines. Behind them lines are valid as long as
        they left the memory unchanged: a frame that changed it, when the memory could not be saved
        any more, is segmented again, with the same result.
        """
        count, size, after = 0, 0, -1
        with self.lines.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):  # cut off
                    break
                entry = json.loads(line)
                # Earlier versions did not note which frames were checked.
                if count >= min_count and (entry["remembered"] or entry.get("checked")):
                    break
                count, size, after = count + 1, size + len(line), entry["index"]
                width, height = entry["size"]
                objects = entry["objects"].items()
                stats = {int(i): ObjectStats(**item["seen"]) for i, item in objects}
                track.monitor.replay(after, stats, width * height)
        if count < min_count or not count:
            raise ValueError(f"{count} of {min_count} frames")
        return count, size, after

    def _write_frame(
        self, track: Track, index: int, result: Segmentation, events: Mapping[str, bool], lines: Any
    ) -> None:
        """Write one frame: labels, its line, and the memory if it changed; in this order.

        Args:
            events: what changed the memory, by the keys of results.json.
        """
        path = self.folder / f"{self._name(track.frames, index)}.png"
        write_image(result.label_image(), path)
        objects = {
            str(i): {"rle": encode_rle(result.labels == i), "seen": asdict(stats)}
            for i, stats in track.object_stats.items()
        }
        entry = {
            "index": index, "file": str(path.relative_to(self.out)),
            "size": [result.image.width, result.image.height], **events,
            "objects": objects,
        }  # fmt: skip
        lines.write(json.dumps(entry) + "\n")
        lines.flush()
        self.done_count += 1
        if any(events.values()):
            _save_memory(self.state / "memory.npz", track, self.done_count)

    @staticmethod
    def _name(frames: Frames, index: int) -> str:
        return frames.names[index] if frames.names else f"{index:05d}"

    def _write_results(self, track: Track, notes: list[str]) -> Summary:
        """Write results.json from the lines, one at a time: there may be very many."""
        prompt = track.memory.prompt()
        names = prompt.names
        statistics = _Statistics(names)
        offsets = []  # (frame, where its line begins)
        with self.lines.open("rb") as lines:
            offset = 0
            for line in lines:
                offsets.append((statistics.add(json.loads(line)), offset))
                offset += len(line)
        review = {frame: statistics.reasons[frame] for frame in track.frames_to_review()}
        head = {
            "settings": self.settings, "notes": notes,
            "ids": {str(i): {"name": names[i], "color": prompt.colors[i]} for i in prompt.ids},
            "worth_a_look": {str(frame): text for frame, text in review.items()},
        }  # fmt: skip
        with (
            atomic(self.out / RESULTS) as draft,
            draft.open("w", encoding="utf-8") as file,
            self.lines.open("rb") as lines,
        ):
            file.write(json.dumps(head, indent=1).removesuffix("\n}") + ',\n "frames": [')
            for number, (_, offset) in enumerate(sorted(offsets)):
                lines.seek(offset)
                file.write((",\n  " if number else "\n  ") + lines.readline().decode().strip())
            file.write("\n ]\n}\n")
        return Summary(len(offsets), statistics.frame_counts, names, review, notes)

    def draw(
        self, frames: Frames, colors: Mapping[int, Rgb], rate: Fraction,
        on_progress: OnProgress = lambda stage, done, total: None,
    ) -> Path:  # fmt: skip
        """Write the overlay as H.264 MP4, in step with the source; frames without labels stay as
        they are.

        Raises: see `write_overlay`.
        """

        def labels(index: int) -> "IdMap | None":
            path = self.folder / f"{self._name(frames, index)}.png"
            if not path.is_file():
                return None
            return np.asarray(open_file(path)).astype(np.int32)

        return write_overlay(self.out / OVERLAY, frames, labels, colors, rate, on_progress)

    def colors(self) -> dict[int, Rgb]:
        """Return the colors of the ids in results.json."""
        ids = json.loads((self.out / RESULTS).read_text(encoding="utf-8"))["ids"]
        return {int(i): tuple(item["color"]) for i, item in ids.items()}

    def end(self) -> None:
        """Remove the state: all is done."""
        shutil.rmtree(self.state, ignore_errors=True)


class _Statistics:
    """What the lines of all frames add up to."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names, self.frame_counts = names, dict.fromkeys(names, 0)
        self.reasons: dict[int, str] = {}

    def add(self, entry: Mapping[str, Any]) -> int:
        """Add one frame; returns its number."""
        number, reasons = int(entry["index"]), []
        for key, item in entry["objects"].items():
            index, stats = int(key), item["seen"]
            self.frame_counts[index] = self.frame_counts.get(index, 0) + (stats["pixels"] > 0)
            if stats["warning"]:
                reasons.append(f"id {index} ({self.names.get(index, key)}) {stats['warning']}")
        if reasons:
            self.reasons[number] = "; ".join(reasons)
        return number


def _read_settings(path: Path) -> dict[str, Any] | None:
    """Read the settings of a run; None if there is none.

    Raises:
        InputError: the file holds no settings.
    """
    if not path.is_file():
        return None
    try:
        settings: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8"))["settings"])
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path}: damaged, or not of `incontext video`; pass --overwrite, or another folder"
        ) from None
    return settings


def _save_memory(path: Path, track: Track, count: int) -> None:
    with atomic(path) as draft, draft.open("wb") as file:
        np.savez(file, finished=count, **track.memory.state())
