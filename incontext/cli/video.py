"""The command that follows objects through a video."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from incontext.cli.common import PrecisionOptions, Progress, check_out_folder, option_groups
from incontext.cli.examples import MaskOptions
from incontext.errors import InputError

if TYPE_CHECKING:
    from incontext.video.frames import Frames
    from incontext.video.policies import MemoryPolicy
    from incontext.video.run import Summary, VideoRun

RULES = ("ours", "official")
DIRECTIONS = ("auto", "forward", "backward", "both")
MAX_LINES = 10  # frames worth a look that are printed


@dataclass(frozen=True)
class TrackOptions:
    """How objects are followed, and what is remembered of them."""

    keep: Annotated[int, typer.Option(help="Number of predicted frames to remember, K.", min=0)] = 4
    per_pass: Annotated[
        int | None,
        typer.Option(help="Objects painted at once; 1 is the most exact and the slowest.", min=1),
    ] = None
    rule: Annotated[
        str, typer.Option(help="Rule that decides what is remembered: ours or official.")
    ] = "ours"
    direction: Annotated[
        str,
        typer.Option(help="Direction from the labelled frames: auto, forward, backward or both."),
    ] = "auto"
    kind: Annotated[
        str,
        typer.Option(
            help="What to follow: the very objects (instance) or all of their class (semantic)."
        ),
    ] = "instance"

    def check(self) -> None:
        """Raise InputError for an unknown rule or direction."""
        if self.rule not in RULES:
            raise InputError(f"--rule {self.rule!r}; accepted: {', '.join(RULES)}")
        if self.direction not in DIRECTIONS:
            raise InputError(f"--direction {self.direction!r}; accepted: {', '.join(DIRECTIONS)}")

    def policy(self) -> "MemoryPolicy":
        """Return the policy of memory that the options name."""
        from incontext.video.policies import CycleConsistencyPolicy, SegGPTPolicy

        policy = SegGPTPolicy if self.rule == "official" else CycleConsistencyPolicy
        return policy(self.keep, **({"per_pass": self.per_pass} if self.per_pass else {}))


@dataclass(frozen=True)
class OverlayOptions:
    """The video with the masks drawn."""

    rate: Annotated[
        float | None,
        typer.Option(help="Frames a second of the overlay of a folder; by default 24."),
    ] = None
    overlay: Annotated[
        bool, typer.Option(help="Write overlay.mp4, the video with the masks drawn.")
    ] = True

    def check(self) -> None:
        """Raise InputError for a rate that no video has."""
        if self.rate is not None and not 0.1 <= self.rate <= 1000:
            raise InputError(f"--rate {self.rate}; accepted: 0.1 … 1000 frames a second")

    def frame_rate(self, frames: "Frames") -> Fraction:
        """Return the frames a second of a video file; for other frames `rate`, or 24."""
        file_rate = getattr(frames, "rate", None)
        if file_rate is not None:
            return Fraction(file_rate)
        return Fraction(self.rate or 24).limit_denominator(1001)


@dataclass(frozen=True)
class FrameOptions:
    """Masks of frames, and a prompt."""

    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="Mask of the first frame, or FRAME=MASK (the first is 0); repeat it for more."
        ),
    ] = None
    add: Annotated[
        list[str] | None,
        typer.Option(help="Mask of new objects only, FRAME=MASK; what it leaves blank is unknown."),
    ] = None
    prompt: Annotated[
        Path | None, typer.Option(help="Prompt file, in addition to labels or instead of them.")
    ] = None

    def __bool__(self) -> bool:
        """Tell whether anything was given."""
        return bool(self.labels or self.add or self.prompt)

    def parse(self) -> tuple[dict[int, Path], dict[int, Path]]:
        """Parse complete masks, and masks of new objects, by frame.

        Raises:
            InputError: two masks for one frame, or a frame that is not a number.
        """
        complete_masks, object_masks = parse_frames(self.labels), parse_frames(self.add, "--add")
        shared_frames = sorted(complete_masks.keys() & object_masks.keys())
        if shared_frames:
            raise InputError(f"--labels and --add both name frame {shared_frames[0]}")
        return complete_masks, object_masks


@option_groups
def video(
    source: Annotated[Path, typer.Argument(help="Video file, folder of frames, or TIFF stack.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    *,
    annotations: FrameOptions,
    masks: MaskOptions,
    tracking: TrackOptions,
    drawing: OverlayOptions,
    model: PrecisionOptions,
    overwrite: Annotated[
        bool, typer.Option(help="Start over, even where there are results.")
    ] = False,
) -> None:
    """Follow objects through a video.

    Takes a mask of one frame and gives masks of every frame. Writes Annotations/NAME/FRAME.png
    (DAVIS layout), results.json with RLE masks, and overlay.mp4. A run that was stopped goes on
    where it was. Exit code: 0 done, 2 the input was wrong.
    """
    from incontext.checkpoints.location import locate
    from incontext.labels.coco import import_mask_coder
    from incontext.video.annotations import NewObjects
    from incontext.video.frames import open_frames
    from incontext.video.predictor import VideoPredictor
    from incontext.video.run import VideoRun
    from incontext.video.video_file import import_av

    check_out_folder(out)
    tracking.check()
    drawing.check()
    files = replace(masks.files(), kind=tracking.kind)
    if not annotations and not files:
        raise InputError("nothing to look for: give --labels MASK, --prompt FILE or --example")
    complete_masks, object_masks = annotations.parse()
    import_mask_coder()
    if drawing.overlay:
        import_av()
    frames = open_frames(source)
    if drawing.rate and hasattr(frames, "rate"):
        raise InputError(f"--rate is for folders; {source} has {float(frames.rate):g} a second")
    weights = locate(model.checkpoint)
    settings = {
        "source": _source_settings(source, frames),
        **_file_settings(weights, complete_masks, object_masks, annotations.prompt),
        "checkpoint": model.checkpoint, "keep": tracking.keep, "rule": tracking.rule,
        "per_pass": tracking.per_pass, "direction": tracking.direction, "dtype": model.dtype,
        **files.settings(),
    }  # fmt: skip
    run = VideoRun(out, source.stem or source.resolve().name, settings, overwrite)
    _check_not_among_results(run, (*complete_masks.values(), *object_masks.values()))
    if run.complete:
        _finish_again(run, frames, drawing)
        return
    predictor = model.open(weights, model.dtype)
    video_predictor = VideoPredictor(predictor, policy=tracking.policy(), kind=tracking.kind)
    labels_by_frame: dict[int, Any] = {
        **complete_masks, **{index: NewObjects(path) for index, path in object_masks.items()}
    }  # fmt: skip
    track = video_predictor.track(
        frames, labels_by_frame, prompt=annotations.prompt, examples=files.read(),
        names=files.names, direction=tracking.direction, **files.label_options,
    )  # fmt: skip
    _follow(run, track, drawing)


def parse_frames(texts: list[str] | None, option: str = "--labels") -> dict[int, Path]:
    """Parse ["first.png", "40=later.png"] as {0: first.png, 40: later.png}.

    Raises:
        InputError: two masks for one frame, or a frame that is not a number.
    """
    paths: dict[int, Path] = {}
    for text in texts or []:
        number, equals, path = text.partition("=")
        if equals and not number.isdecimal() and not Path(text).is_file():
            raise InputError(f"{option} {text}: {number!r} is no frame; accepted: 0, 1, 2 …")
        index, file = (int(number), path) if equals and number.isdecimal() else (0, text)
        if index in paths:
            raise InputError(f"{option} names frame {index} twice")
        paths[index] = Path(file)
    return paths


def _hash_file(path: Path) -> str:
    """Hash a file; raise InputError where there is none."""
    from incontext.batch.inputs import file_hash

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return file_hash(path)


def _file_settings(
    weights: Path, complete_masks: dict[int, Path], object_masks: dict[int, Path],
    prompt: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """Return what identifies the files of a run, for comparing runs."""
    return {
        "weights": _hash_file(weights),
        "given": {str(i): _hash_file(path) for i, path in complete_masks.items()},
        "added": {str(i): _hash_file(path) for i, path in object_masks.items()},
        "prompt": _hash_file(prompt) if prompt else None,
    }


def _source_settings(source: Path, frames: "Frames") -> Any:
    """Return what identifies a video, without reading its frames."""
    from hashlib import sha256

    from incontext.batch.inputs import fingerprint

    if not source.is_dir():
        return fingerprint(source)
    files = [fingerprint(Path(frames.file_of(i) or "")) for i in range(frames.total or 0)]
    text = str([{**file, "path": Path(file["path"]).name} for file in files])
    digest = sha256(text.encode()).hexdigest()
    return {"path": str(source), "files": len(files), "hash": digest[:16]}


def _check_not_among_results(run: "VideoRun", paths: Iterable[Path]) -> None:
    """Raise InputError where a mask is a file that the run will replace."""
    for path in paths:
        if path.resolve().is_relative_to(run.folder.resolve()):
            raise InputError(f"{path} lies among the results, which are overwritten; copy it first")


def _finish_again(run: "VideoRun", frames: "Frames", drawing: OverlayOptions) -> None:
    """Tell that a run is finished; draw its overlay if that is all that is missing."""
    from incontext.video.run import OVERLAY

    typer.echo(f"finished already: {run.out / 'results.json'}")
    if drawing.overlay and not (run.out / OVERLAY).is_file():
        with Progress("frame") as progress:
            run.draw(frames, run.colors(), drawing.frame_rate(frames), progress.update)


def _follow(run: "VideoRun", track: Any, drawing: OverlayOptions) -> None:
    """Segment every frame behind a progress bar, draw the overlay, print a summary."""
    with Progress("frame") as progress:
        try:
            summary = run.follow(track, progress.update)
            if drawing.overlay:
                frame_rate = drawing.frame_rate(track.frames)
                run.draw(track.frames, track.memory.colors, frame_rate, progress.update)
        except KeyboardInterrupt:
            typer.echo("interrupted; finished frames are kept, run it again to go on", err=True)
            raise typer.Exit(130) from None
    run.end()
    _print_summary(run, summary)


def _print_summary(run: "VideoRun", summary: "Summary") -> None:
    """Print in how many frames each id was found, notes, and frames worth a look."""
    for index, count in sorted(summary.frame_counts.items()):
        typer.echo(f"id {index} ({summary.names[index]}): in {count} of {summary.frames} frames")
    for note in summary.notes:
        typer.echo(f"note: {note}")
    if summary.review:
        subject = "1 frame is" if len(summary.review) == 1 else f"{len(summary.review)} frames are"
        typer.echo(f"{subject} worth a look, and new labels where wrong (--labels FRAME=MASK):")
        for frame, reason in list(summary.review.items())[:MAX_LINES]:
            typer.echo(f"  frame {frame}: {reason}")
        if len(summary.review) > MAX_LINES:
            typer.echo(f"  … and {len(summary.review) - MAX_LINES} more, see results.json")
    typer.echo(f"results: {run.out / 'results.json'}")
