"""Video: J&F against the number of frames remembered, with our memory policy and the official."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eval.core.clips import VideoClip, VideoSet, draw_clip
from eval.core.metrics import JandF, jaccard
from eval.core.processes import Processes
from eval.core.report import Row, write_report
from eval.core.setting import Setting
from eval.core.shared_work import Task, run_tasks
from incontext import Predictor, VideoPredictor
from incontext.errors import InputError
from incontext.files import atomic
from incontext.inference.segmentation import label_image, write_image
from incontext.labels.coloring import PALETTE
from incontext.video.policies import CycleConsistencyPolicy, MemoryPolicy, SegGPTPolicy

# By the name in `--rule` and `--rules`; the argument is the number of frames remembered.
POLICIES: dict[str, Callable[[int], MemoryPolicy]] = {
    "ours": CycleConsistencyPolicy, "single": partial(CycleConsistencyPolicy, per_pass=1),
    "official": SegGPTPolicy,
}  # fmt: skip


def predict_clip(video: VideoPredictor, clip: VideoClip) -> list[np.ndarray[Any, Any]]:
    """Return the ids of every frame, (H, W) each; zeros before the first labels."""
    maps: list[np.ndarray[Any, Any]] = [np.zeros((0, 0))] * len(clip.frames)
    options = {"ignore": "none", **clip.label_options}
    for index, result in video.track(
        clip.frames, clip.given_labels, direction="forward", **options
    ):
        maps[index] = result.labels
    first = min(clip.given_labels)
    for index in range(first):
        maps[index] = np.zeros_like(maps[first])
    return maps


def score_clips(
    video: VideoPredictor, clips: Iterable[VideoClip], entries: dict[str, Any],
    save: Callable[[], None],
) -> None:  # fmt: skip
    """Add J and F of every object of the clips that `entries` lacks, saving after each clip."""
    for clip in clips:
        if clip.name in entries:
            continue
        assert clip.truth is not None
        start, meter = time.perf_counter(), JandF()
        meter.add(clip.truth, np.stack(predict_clip(video, clip)))
        seconds = time.perf_counter() - start
        means = [{m: float(np.mean(o[m])) for m in ("J", "F")} for o in meter.objects]
        entries[clip.name] = {"objects": means, "rate": len(clip.frames) / seconds}
        save()


def run(
    clips: Sequence[VideoClip], checkpoint: str, keeps: Sequence[int], rules: Sequence[str],
    kind: str, out: Path | None,
) -> None:  # fmt: skip
    """Print a table of J, F and J&F in percent, a row for each rule and number of frames K.

    Args:
        keeps: numbers of frames remembered.
        rules: names in `POLICIES`.
        out: folder for video.json, from which a later run goes on.
    """
    predictor = Predictor.from_pretrained(checkpoint)
    path = out / "video.json" if out else None
    results: dict[str, Any] = json.loads(path.read_text()) if path and path.is_file() else {}

    def save() -> None:
        if path:
            with atomic(path) as draft:
                draft.write_text(json.dumps(results, indent=1))

    print(
        "| rule | K | J | F | J&F | clips | frames/s |\n|---|---|---|---|---|---|---|", flush=True
    )
    for rule in rules:
        for keep in keeps:
            if keep == 0 and rule == "official":
                continue  # without a memory there is nothing to decide
            entries = results.setdefault(f"{rule} {keep} {kind} {checkpoint}", {})
            video = VideoPredictor(predictor, policy=POLICIES[rule](keep), kind=kind)
            score_clips(video, clips, entries, save)
            _print_row(rule, keep, [entries[c.name] for c in clips if c.name in entries])


def _print_row(rule: str, keep: int, entries: Sequence[dict[str, Any]]) -> None:
    objects = [o for entry in entries for o in entry["objects"]]
    j, f = (100 * float(np.mean([o[m] for o in objects])) for m in ("J", "F"))
    rate = float(np.median([entry["rate"] for entry in entries]))
    print(f"| {rule} | {keep} | {j:.1f} | {f:.1f} | {(j + f) / 2:.1f} | {len(entries)} | "
          f"{rate:.1f} |", flush=True)  # fmt: skip


def follow(seed: int, frames: int, objects: int, checkpoint: str, keep: int) -> None:
    """Print a row for each object of one drawn clip: visible, confused, absent, back again."""
    clip = draw_clip(seed, frames, objects)
    assert clip.truth is not None
    video = VideoPredictor.from_pretrained(checkpoint, policy=CycleConsistencyPolicy(keep))
    maps = np.stack(predict_clip(video, clip))
    print(f"{clip.name}, {frames} frames, K = {keep}\n")
    print("| id | frames seen | mean IoU | IoU over 0.5 | under another id | frames absent | empty "
          "then | mean IoU after its return |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for index in range(1, objects + 1):
        truth, predicted = clip.truth == index, maps == index
        area = truth.sum((1, 2))
        visible, absent = area > area[0] / 4, area == 0
        ious = np.array([jaccard(p, t) for p, t in zip(predicted, truth, strict=True)])
        swapped = (truth & (maps > 0) & ~predicted).sum() / truth.sum()
        last_absent = np.flatnonzero(absent).max(initial=-1)
        back = visible & (np.arange(frames) > last_absent) & (last_absent >= 0)
        empty = (predicted[absent].sum((1, 2)) == 0).sum()
        iou_after_return = f"{ious[back].mean():.2f}" if back.any() else "–"
        print(f"| {index} | {visible.sum()} | {ious[visible].mean():.2f} | "
              f"{(ious[visible] > 0.5).sum()} | {100 * swapped:.1f} % | {absent.sum()} | {empty} | "
              f"{iou_after_return} |")  # fmt: skip


def dataset(
    data: VideoSet, folder: Path, split: str, setting: Setting, keep: int | None, rule: str,
    out: Path | None = None, masks: bool = False, max_clips: int | None = None,
) -> None:  # fmt: skip
    """Print J&F on a dataset of clips, or write palette PNGs for its evaluation server.

    Args:
        keep: frames remembered; None: 8 for the official model, as in its paper, else 4.
        rule: name in `POLICIES`; "": the official one for the official model, else ours.
        masks: write OUT/Annotations/CLIP/FRAME.png instead of a table.

    Raises:
        InputError: an unknown rule, no clips, or clips without a truth to score them by.
    """
    processes = Processes.from_environment()
    predictor = setting.load_predictor(processes)
    official = predictor.model.config.example_attention == "joint"
    rule = rule or ("official" if official else "ours")
    if rule not in POLICIES:
        raise InputError(f"--rule {rule!r}; accepted: {', '.join(POLICIES)}")
    keep = (8 if official else 4) if keep is None else keep
    kind = setting.kind or "instance"
    video = VideoPredictor(predictor, policy=POLICIES[rule](keep), kind=kind)
    readers = dict(list(data.clips(folder, split or data.split).items())[:max_clips])
    run_settings = {
        "dataset": data.name, "data": str(folder.resolve()), "split": split or data.split,
        "rule": rule, "keep": keep, **setting.run_settings(predictor), "kind": kind,
    }  # fmt: skip
    names, reads = list(readers), list(readers.values())
    if masks:
        if out is None:
            raise InputError("--masks are written to a folder: pass --out")
        task = Task("masks", names, lambda: lambda n: _write_masks(video, reads[n](), out))
        run_tasks([task], data.name, {**run_settings, "masks": True}, out, processes)
        return
    task = Task("clips", names, lambda: lambda n: _object_scores(video, reads[n]()))
    scores = run_tasks([task], data.name, run_settings, out, processes)["clips"]
    row = _dataset_row(scores, f"{rule} rule, {keep} frames remembered",
                       setting.domain(data.image_source))  # fmt: skip
    if processes.first:
        write_report(data.title, run_settings, [row], data.published, out, data.name)


def _dataset_row(scores: Sequence[Any], title: str, domain: str) -> Row:
    meter = JandF()
    meter.objects = [objects for clip in scores for objects in clip]
    figures = {name: 100 * value for name, value in meter.means().items()}
    return Row(
        title, {name: figures[name] for name in ("J&F", "J", "F")}, domain,
        f"{len(scores)} clips, {len(meter.objects)} objects",
        {"objects": [[float(np.mean(o[m])) for m in ("J", "F")] for o in meter.objects]},
    )  # fmt: skip


def _object_scores(video: VideoPredictor, clip: VideoClip) -> list[dict[str, list[float]]]:
    """Return J and F of every object's frames."""
    if clip.truth is None:
        raise InputError(f"{clip.name} has no truth; accepted: --masks, for the dataset's server")
    meter = JandF()
    meter.add(clip.truth, np.stack(predict_clip(video, clip)))
    return meter.objects


def _write_masks(video: VideoPredictor, clip: VideoClip, out: Path) -> int:
    """Write palette PNGs of every frame, OUT/Annotations/CLIP/FRAME.png; return how many."""
    folder = out / "Annotations" / clip.name
    folder.mkdir(parents=True, exist_ok=True)
    maps = predict_clip(video, clip)
    colors = {i: PALETTE.color(i) for i in np.unique(np.stack(maps)).tolist() if i}
    for number, ids in enumerate(maps):
        frame = clip.frames[number]
        name = frame.stem if isinstance(frame, Path) else f"{number:05d}"
        write_image(label_image(ids, colors), folder / f"{name}.png")
    return len(maps)
