"""A command for each dataset's protocol."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from eval.core.clips import VideoSet
from eval.core.domains import PICTURES
from eval.core.protocol import FewShot
from eval.datasets import FEW_SHOT, VIDEOS, ade20k, coco_panoptic
from incontext.checkpoints.checkpoint import DEFAULT
from incontext.errors import InputError

Data = Annotated[Path, typer.Option(help="Folder that holds the dataset, see above.")]
Kind = Annotated[str, typer.Option(help="semantic or instance; without it the checkpoint's own.")]
Ensemble = Annotated[str, typer.Option(help="feature or spatial (SegGPT section 3.3).")]
TrainedOn = Annotated[
    str,
    typer.Option(help=f"What the checkpoint saw in training: {', '.join(PICTURES)}, or none."),
]
Out = Annotated[Path | None, typer.Option(help="Folder for tables and for going on.")]


def numbers(text: str, name: str) -> list[int]:
    """Whole numbers with commas.

    Raises:
        InputError: something else.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{name} {text!r}; accepted: whole numbers with commas, 0,1,2") from None


def add(app: typer.Typer) -> None:
    """Add a command for every dataset."""
    for protocol in FEW_SHOT.values():
        app.command(protocol.name, help=_help(protocol))(_command(protocol))
    for video in VIDEOS.values():
        text = f"{video.title}: J&F. --data is the folder that holds {video.layout}"
        app.command(video.name, help=text)(_video_command(video))
    app.command("ade20k", help=f"ADE20K: mIoU. --data holds {ade20k.SET.layout}")(_ade20k)
    app.command(
        "coco-panoptic", help=f"COCO panoptic: PQ, AP. --data holds {coco_panoptic.LAYOUT}"
    )(_coco_panoptic)


def _help(protocol: FewShot) -> str:
    folds = f" {protocol.folds} folds." if protocol.folds > 1 else ""
    return (
        f"{protocol.title}: few-shot mIoU, FB-IoU and Dice.{folds} --data is the folder that holds "
        f"{protocol.layout}"
    )


def _command(protocol: FewShot) -> Callable[..., None]:
    def command(
        data: Data,
        checkpoint: str = DEFAULT,
        fold: Annotated[str, typer.Option(help="Folds, with commas; all without it.")] = "",
        examples: Annotated[str, typer.Option(help="Numbers of examples, with commas.")] = "1,5",
        episodes: Annotated[
            int | None, typer.Option(help="Of a fold, at most; the protocol's without it.", min=1)
        ] = None,
        ensemble: Ensemble = "feature",
        kind: Kind = "",
        dtype: str = "float32",
        trained_on: TrainedOn = "",
        out: Out = None,
        threads: int = 2,
    ) -> None:
        import torch

        from eval.core.setting import Setting
        from eval.runs.fewshot import run

        torch.set_num_threads(threads)
        setting = Setting(checkpoint, kind, ensemble, dtype, trained_on)
        folds = numbers(fold, "--fold") if fold else list(range(protocol.folds))
        run(protocol, data, setting, folds, numbers(examples, "--examples"), episodes, out)

    return command


def _video_command(video: VideoSet) -> Callable[..., None]:
    def command(
        data: Data,
        checkpoint: str = DEFAULT,
        split: Annotated[str, typer.Option(help=f"Without it {video.split}.")] = "",
        keep: Annotated[
            int | None, typer.Option(help="Frames remembered; without it the checkpoint's own.")
        ] = None,
        rule: Annotated[str, typer.Option(help="ours, single, official.")] = "",
        clips: Annotated[int | None, typer.Option(help="At most so many.", min=1)] = None,
        masks: Annotated[
            bool, typer.Option(help="Write masks for the dataset's server, score nothing.")
        ] = False,
        kind: Kind = "",
        dtype: str = "float32",
        trained_on: TrainedOn = "",
        out: Out = None,
        threads: int = 2,
    ) -> None:
        import torch

        from eval.core.setting import Setting
        from eval.runs.video import dataset

        torch.set_num_threads(threads)
        setting = Setting(checkpoint, kind, dtype=dtype, trained_on=trained_on)
        dataset(video, data, split, setting, keep, rule, out, masks, clips)

    return command


Pictures = Annotated[int | None, typer.Option(help="At most so many.", min=1)]
Tuned = Annotated[
    Path | None, typer.Option(help="A tuned prompt; its ids are class + 1, as in label files.")
]


def _ade20k(
    data: Data,
    checkpoint: str = DEFAULT,
    examples: Annotated[str, typer.Option(help="Numbers of examples a class, or none.")] = "1",
    prompt: Tuned = None,
    pictures: Pictures = None,
    ensemble: Ensemble = "feature",
    kind: Kind = "",
    dtype: str = "float32",
    trained_on: TrainedOn = "",
    out: Out = None,
    threads: int = 2,
) -> None:
    import torch

    from eval.core.setting import Setting
    from eval.runs.semantic import run

    torch.set_num_threads(threads)
    counts = numbers(examples, "--examples") if examples != "none" else []
    setting = Setting(checkpoint, kind, ensemble, dtype, trained_on)
    run(ade20k.SET, data, setting, counts, prompt, pictures, out)


def _coco_panoptic(
    data: Data,
    checkpoint: str = DEFAULT,
    examples: Annotated[int, typer.Option(help="Examples a class.", min=1)] = 1,
    instances: Annotated[int, typer.Option(help="Examples of instances.", min=1)] = 8,
    prompt: Tuned = None,
    pictures: Pictures = None,
    ensemble: Ensemble = "feature",
    kind: Kind = "",
    dtype: str = "float32",
    trained_on: TrainedOn = "",
    out: Out = None,
    threads: int = 2,
) -> None:
    import torch

    from eval.core.setting import Setting
    from eval.runs.panoptic_run import run

    torch.set_num_threads(threads)
    setting = Setting(checkpoint, kind, ensemble, dtype, trained_on)
    run(data, setting, examples, instances, prompt, pictures, out)
