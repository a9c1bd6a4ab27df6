"""Video: J&F against the number of frames remembered, with our rule and the official one."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eval.core.clips import Clip, VideoSet, drawn
from eval.core.metrics import JandF, jaccard
from eval.core.processes import Processes
from eval.core.report import Row
from eval.core.report import write as write_table
from eval.core.setting import Setting
from eval.core.shared_work import Part, complete
from incontext import Predictor, VideoPredictor
from incontext.errors import InputError
from incontext.files import atomic
from incontext.inference.segmentation import label_image, write_image
from incontext.labels.coloring import PALETTE
from incontext.video.policies import Official, Rule, Trusted

RULES: dict[str, Callable[[int], Rule]] = {
    "ours": Trusted, "single": partial(Trusted, per_pass=1), "official": Official,
}  # fmt: skip


def answers(video: VideoPredictor, clip: Clip) -> list[np.ndarray[Any, Any]]:
    """Ids of every frame, (H, W) each; nothing before the first labels."""
    maps: list[np.ndarray[Any, Any]] = [np.zeros((0, 0))] * len(clip.frames)
    for index, result in video.track(
        clip.frames, clip.given, direction="forward", **{"ignore": "none", **clip.reading}
    ):
        maps[index] = result.labels
    for index in range(min(clip.given)):
        maps[index] = np.zeros_like(maps[min(clip.given)])
    return maps


def score(video: VideoPredictor, clips: Iterable[Clip], done: dict[str, Any], save: Any) -> None:
    """J and F of every object of clips that are not in `done` yet."""
    for clip in clips:
        if clip.name in done:
            continue
        assert clip.truth is not None
        started, meter = time.perf_counter(), JandF()
        meter.add(clip.truth, np.stack(answers(video, clip)))
        seconds = time.perf_counter() - started
        means = [{m: float(np.mean(o[m])) for m in ("J", "F")} for o in meter.objects]
        done[clip.name] = {"objects": means, "rate": len(clip.frames) / seconds}
        save()


def run(
    clips: Sequence[Clip], checkpoint: str, keeps: Sequence[int], rules: Sequence[str], kind: str,
    out: Path | None,
) -> None:  # fmt: skip
    """Print a table of J, F and J&F in percent, a row for each rule and K."""
    predictor = Predictor.from_pretrained(checkpoint)
    path = out / "video.json" if out else None
    kept: dict[str, Any] = json.loads(path.read_text()) if path and path.is_file() else {}

    def save() -> None:
        if path:
            with atomic(path) as draft:
                draft.write_text(json.dumps(kept, indent=1))

    print(
        "| rule | K | J | F | J&F | clips | frames/s |\n|---|---|---|---|---|---|---|", flush=True
    )
    for name in rules:
        for keep in keeps:
            if keep == 0 and name == "official":
                continue  # no rule without a memory
            rule = RULES[name](keep)
            done = kept.setdefault(f"{name} {keep} {kind} {checkpoint}", {})
            score(VideoPredictor(predictor, rule=rule, kind=kind), clips, done, save)
            wanted = [done[c.name] for c in clips if c.name in done]
            every = [o for entry in wanted for o in entry["objects"]]
            j, f = (100 * float(np.mean([o[m] for o in every])) for m in ("J", "F"))
            rate = float(np.median([entry["rate"] for entry in wanted]))
            print(f"| {name} | {keep} | {j:.1f} | {f:.1f} | {(j + f) / 2:.1f} | "
                  f"{len(wanted)} | {rate:.1f} |", flush=True)  # fmt: skip


def follow(seed: int, frames: int, objects: int, checkpoint: str, keep: int) -> None:
    """Print what becomes of each object of one drawn clip: seen, taken for another, gone, back."""
    clip = drawn(seed, frames, objects)
    assert clip.truth is not None
    video = VideoPredictor.from_pretrained(checkpoint, rule=Trusted(keep))
    maps = np.stack(answers(video, clip))
    print(f"{clip.name}, {frames} frames, K = {keep}\n")
    print("| id | frames seen | mean IoU | IoU over 0.5 | under another id | frames absent | empty "
          "then | mean IoU after its return |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for index in range(1, objects + 1):
        truth, ours = clip.truth == index, maps == index
        area = truth.sum((1, 2))
        there, absent = area > area[0] / 4, area == 0
        ious = np.array([jaccard(o, t) for o, t in zip(ours, truth, strict=True)])
        swapped = (truth & (maps > 0) & ~ours).sum() / truth.sum()
        last = np.flatnonzero(absent).max(initial=-1)
        back = there & (np.arange(frames) > last) & (last >= 0)
        empty = (ours[absent].sum((1, 2)) == 0).sum()
        returned = f"{ious[back].mean():.2f}" if back.any() else "–"
        print(f"| {index} | {there.sum()} | {ious[there].mean():.2f} | "
              f"{(ious[there] > 0.5).sum()} | {100 * swapped:.1f} % | {absent.sum()} | {empty} | "
              f"{returned} |")  # fmt: skip


def dataset(
    data: VideoSet, folder: Path, split: str, setting: Setting, keep: int | None, rule: str,
    out: Path | None = None, masks: bool = False, most: int | None = None,
) -> None:  # fmt: skip
    """J&F on a dataset of clips, or palette PNGs of every frame for its evaluation server.

    Args:
        keep: frames remembered; None: 8 for the official model, as in its paper, else 4.
        rule: of `RULES`; "": the official one for the official model, else ours.
        masks: write OUT/Annotations/CLIP/FRAME.png instead.
        most: clips, at most.

    Raises:
        InputError: an unknown rule, no clips, or clips without a truth where they are scored.
    """
    processes = Processes.here()
    predictor = setting.open(processes)
    official = predictor.model.config.example_attention == "joint"
    rule = rule or ("official" if official else "ours")
    if rule not in RULES:
        raise InputError(f"--rule {rule!r}; accepted: {', '.join(RULES)}")
    keep = (8 if official else 4) if keep is None else keep
    kind = setting.kind or "instance"
    video = VideoPredictor(predictor, rule=RULES[rule](keep), kind=kind)
    listed = dict(list(data.clips(folder, split or data.split).items())[:most])
    about = {"dataset": data.name, "data": str(folder.resolve()), "split": split or data.split,
             "rule": rule, "keep": keep, **setting.about(predictor), "kind": kind}  # fmt: skip
    reads = list(listed.values())
    if masks:
        if out is None:
            raise InputError("--masks are written to a folder: pass --out")
        made = Part("masks", list(listed), lambda: lambda n: _write(video, reads[n](), out))
        complete([made], data.name, {**about, "masks": True}, out, processes)
        return
    part = Part("clips", list(listed), lambda: lambda n: _judged(video, reads[n]()))
    done = complete([part], data.name, about, out, processes)["clips"]
    meter = JandF()
    meter.objects = [one for objects in done for one in objects]
    figures = {name: 100 * value for name, value in meter.means().items()}
    row = Row(
        f"{rule} rule, {keep} frames remembered",
        {name: figures[name] for name in ("J&F", "J", "F")},
        setting.domain(data.pictures), f"{len(done)} clips, {len(meter.objects)} objects",
        {"objects": [[float(np.mean(o[m])) for m in ("J", "F")] for o in meter.objects]},
    )  # fmt: skip
    if processes.first:
        write_table(data.title, about, [row], data.published, out, data.name)


def _judged(video: VideoPredictor, clip: Clip) -> list[dict[str, list[float]]]:
    """J and F of every object's frames."""
    if clip.truth is None:
        raise InputError(f"{clip.name} has no truth; accepted: --masks, for the dataset's server")
    meter = JandF()
    meter.add(clip.truth, np.stack(answers(video, clip)))
    return meter.objects


def _write(video: VideoPredictor, clip: Clip, out: Path) -> int:
    """Palette PNGs of every frame, OUT/Annotations/CLIP/FRAME.png; how many."""
    target = out / "Annotations" / clip.name
    target.mkdir(parents=True, exist_ok=True)
    maps = answers(video, clip)
    colors = {i: PALETTE.of(i) for i in np.unique(np.stack(maps)).tolist() if i}
    for number, ids in enumerate(maps):
        frame = clip.frames[number]
        name = frame.stem if isinstance(frame, Path) else f"{number:05d}"
        write_image(label_image(ids, colors), target / f"{name}.png")
    return len(maps)
