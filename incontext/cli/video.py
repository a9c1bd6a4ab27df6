"""The command for videos. Parse, call, print."""

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from incontext.cli.arguments import DEFAULT
from incontext.cli.device import Checkpoint, Device, Dtype, open_predictor
from incontext.cli.examples import (
    Colors,
    Ignore,
    Names,
    Negative,
    Pairs,
    Shown,
    Threshold,
    Unlabelled,
)
from incontext.cli.progress import Progress
from incontext.errors import InputError

if TYPE_CHECKING:
    from incontext.video.frames import Frames
    from incontext.video.run import Summary, VideoRun

RULES = ("ours", "official")
DIRECTIONS = ("auto", "forward", "backward", "both")
SHOWN = 10  # frames worth a look that are printed


def video(
    source: Annotated[Path, typer.Argument(help="Video file, folder of frames, or TIFF stack.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    labels: Annotated[
        list[str] | None,
        typer.Option(help="Mask of the first frame; FRAME=MASK, from 0 on, for another; repeat."),
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(help="FRAME=MASK of new objects alone: what is blank is unknown."),
    ] = None,
    prompt: Annotated[
        Path | None, typer.Option(help="Prompt file to go along, or instead of labels.")
    ] = None,
    example: Pairs = None,
    keep: Annotated[int, typer.Option(help="Predicted frames remembered, K.", min=0)] = 4,
    per_pass: Annotated[
        int | None,
        typer.Option(help="Objects painted at once: 1 is most exact, and slowest.", min=1),
    ] = None,
    rule: Annotated[str, typer.Option(help="Which are remembered: ours, official.")] = "ours",
    direction: Annotated[
        str, typer.Option(help="auto, forward, backward, both (from the labelled frames).")
    ] = "auto",
    kind: Annotated[
        str, typer.Option(help="instance: the very objects; semantic: all of their class.")
    ] = "instance",
    rate: Annotated[
        float | None, typer.Option(help="Frames a second of the overlay of a folder; else 24.")
    ] = None,
    overlay: Annotated[bool, typer.Option(help="Write overlay.mp4.")] = True,
    checkpoint: Checkpoint = DEFAULT,
    color: Colors = None,
    name: Names = None,
    ignore: Ignore = None,
    threshold: Threshold = None,
    unlabelled: Unlabelled = "background",
    negative: Negative = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    overwrite: Annotated[bool, typer.Option(help="Begin anew.")] = False,
) -> None:
    """Follow objects through a video: a mask of one frame in, masks of every frame out.

    Writes Annotations/NAME/FRAME.png (DAVIS layout), results.json with RLE masks, and overlay.mp4.
    A run that was stopped goes on where it was. Exit code: 0 done, 2 the input was wrong.
    """
    from incontext.batch.targets import file_hash
    from incontext.checkpoints.checkpoint import locate
    from incontext.labels.coco import check_coding
    from incontext.video.movie import check_writing
    from incontext.video.policies import Official, Trusted
    from incontext.video.predictor import Added, VideoPredictor
    from incontext.video.run import OVERLAY, VideoRun
    from incontext.video.sources import open_frames

    _check(out, rule, direction, rate)
    shown = Shown.parse(example, color, name, ignore, threshold, unlabelled, negative, kind)
    if not labels and not add and not prompt and not example:
        raise InputError("what to look for: --labels MASK, or --prompt FILE, or --example")
    given, added = labels_of(labels), labels_of(add, "--add")
    twice = sorted(given.keys() & added.keys())
    if twice:
        raise InputError(f"--labels and --add both name frame {twice[0]}")
    check_coding()
    if overlay:
        check_writing()
    frames = open_frames(source)
    if rate and hasattr(frames, "rate"):
        raise InputError(f"--rate is for folders; {source} has {float(frames.rate):g} a second")
    weights = locate(checkpoint)
    settings = {
        "source": _described(source, frames), "checkpoint": checkpoint,
        "weights": file_hash(weights),
        "given": {str(i): file_hash(_there(p)) for i, p in given.items()},
        "added": {str(i): file_hash(_there(p)) for i, p in added.items()},
        "prompt": file_hash(_there(prompt)) if prompt else None, "keep": keep, "rule": rule,
        "per_pass": per_pass,
        "direction": direction, "dtype": dtype, **shown.described(),
    }  # fmt: skip
    run = VideoRun(out, source.stem or source.resolve().name, settings, overwrite)
    for path in (*given.values(), *added.values()):
        if path.resolve().is_relative_to(run.folder.resolve()):
            raise InputError(
                f"{path} lies among the results, which are written anew; copy it first"
            )
    if run.finished:
        typer.echo(f"finished already: {out / 'results.json'}")
        if overlay and not (out / OVERLAY).is_file():
            with Progress("frame") as progress:
                run.draw(frames, run.colors(), _rate(frames, rate), progress.tell)
        return
    predictor = open_predictor(weights, device, dtype, checkpoint)
    known = Official if rule == "official" else Trusted
    made = VideoPredictor(
        predictor, rule=known(keep, **({"per_pass": per_pass} if per_pass else {})), kind=kind
    )
    every: dict[int, Any] = {**given, **{index: Added(path) for index, path in added.items()}}
    track = made.track(
        frames, every, prompt=prompt, examples=shown.read(), names=shown.names,
        direction=direction, **shown.labels,
    )  # fmt: skip
    _follow(run, track, rate, overlay)


def labels_of(texts: list[str] | None, option: str = "--labels") -> dict[int, Path]:
    """["first.png", "40=later.png"] → {0: first.png, 40: later.png}.

    Raises:
        InputError: two masks of one frame, or a frame that is no number.
    """
    found: dict[int, Path] = {}
    for text in texts or []:
        number, equals, path = text.partition("=")
        if equals and not number.isdecimal() and not Path(text).is_file():
            raise InputError(f"{option} {text}: {number!r} is no frame; accepted: 0, 1, 2 …")
        index, file = (int(number), path) if equals and number.isdecimal() else (0, text)
        if index in found:
            raise InputError(f"{option} names frame {index} twice")
        found[index] = Path(file)
    return found


def _check(out: Path, rule: str, direction: str, rate: float | None) -> None:
    """Say what is wrong before any work."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; accepted: a folder")
    if rule not in RULES:
        raise InputError(f"--rule {rule!r}; accepted: {', '.join(RULES)}")
    if direction not in DIRECTIONS:
        raise InputError(f"--direction {direction!r}; accepted: {', '.join(DIRECTIONS)}")
    if rate is not None and not 0.1 <= rate <= 1000:
        raise InputError(f"--rate {rate}; accepted: 0.1 … 1000 frames a second")


def _there(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def _described(source: Path, frames: "Frames") -> Any:
    """What tells a source from an edited one, without reading it."""
    from hashlib import sha256

    from incontext.batch.targets import fingerprint

    if not source.is_dir():
        return fingerprint(source)
    files = [fingerprint(Path(frames.where(i) or "")) for i in range(frames.total or 0)]
    said = sha256(str([{**one, "path": Path(one["path"]).name} for one in files]).encode())
    return {"path": str(source), "files": len(files), "hash": said.hexdigest()[:16]}


def _follow(run: "VideoRun", track: Any, rate: float | None, overlay: bool) -> None:
    """Answer every frame behind a progress bar, draw, print what was found."""
    with Progress("frame") as progress:
        try:
            summary = run.follow(track, progress.tell)
            if overlay:
                where = _rate(track.frames, rate)
                run.draw(track.frames, track.memory.colors, where, progress.tell)
        except KeyboardInterrupt:
            typer.echo("interrupted; finished frames are kept, run it again to go on", err=True)
            raise typer.Exit(130) from None
    run.end()
    _print(run, summary)


def _rate(frames: "Frames", wanted: float | None) -> Fraction:
    """Frames a second: those of a video file; of other frames those asked for, or 24."""
    own = getattr(frames, "rate", None)
    if own is not None:
        return Fraction(own)
    return Fraction(wanted or 24).limit_denominator(1001)


def _print(run: "VideoRun", summary: "Summary") -> None:
    for index, count in sorted(summary.found.items()):
        typer.echo(f"id {index} ({summary.names[index]}): in {count} of {summary.frames} frames")
    for note in summary.notes:
        typer.echo(f"note: {note}")
    if summary.look:
        few = "1 frame is" if len(summary.look) == 1 else f"{len(summary.look)} frames are"
        typer.echo(f"{few} worth a look, and new labels where wrong (--labels FRAME=MASK):")
        for frame, why in list(summary.look.items())[:SHOWN]:
            typer.echo(f"  frame {frame}: {why}")
        if len(summary.look) > SHOWN:
            typer.echo(f"  … and {len(summary.look) - SHOWN} more, see results.json")
    typer.echo(f"results: {run.out / 'results.json'}")
