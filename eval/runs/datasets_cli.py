"""A command for each dataset's protocol."""

from collections.abc import Callable
from typing import Annotated

import typer

from eval.core.clips import VideoSet
from eval.core.protocol import FewShot
from eval.datasets import FEW_SHOT, VIDEOS, ade20k, coco_panoptic
from eval.runs.options import (
    Checkpoint,
    DatasetFolder,
    Dtype,
    Ensemble,
    Kind,
    MaxImages,
    Out,
    Threads,
    TrainedOn,
    TunedPrompt,
    numbers,
)
from incontext.checkpoints.location import DEFAULT

PANEL = "Datasets of the field, by their protocols"


def add_commands(app: typer.Typer) -> None:
    """Add a command for every dataset."""

    def add(name: str, summary: str, layout: str, function: Callable[..., None]) -> None:
        text = f"{summary}\n\n--data is the folder that holds {layout}."
        command = app.command(name, help=text, short_help=summary, rich_help_panel=PANEL)
        command(function)

    for protocol in FEW_SHOT.values():
        folds = f", {protocol.folds} folds" if protocol.folds > 1 else ""
        summary = f"{protocol.title}: few-shot mIoU, FB-IoU, Dice{folds}."
        add(protocol.name, summary, protocol.layout, _few_shot_command(protocol))
    for videos in VIDEOS.values():
        add(videos.name, f"{videos.title}: J&F.", videos.layout, _video_command(videos))
    add("ade20k", "ADE20K: mIoU and pixel accuracy.", ade20k.SET.layout, _ade20k)
    add("coco-panoptic", "COCO panoptic: PQ and AP.", coco_panoptic.LAYOUT, _coco_panoptic)


def _few_shot_command(protocol: FewShot) -> Callable[..., None]:
    def command(
        data: DatasetFolder,
        checkpoint: Checkpoint = DEFAULT,
        fold: Annotated[str, typer.Option(help="Folds, with commas. Default: all.")] = "",
        examples: Annotated[str, typer.Option(help="Numbers of examples, with commas.")] = "1,5",
        episodes: Annotated[
            int | None,
            typer.Option(help="Largest number of episodes a fold. Default: all.", min=1),
        ] = None,
        ensemble: Ensemble = "feature",
        kind: Kind = "",
        dtype: Dtype = "float32",
        trained_on: TrainedOn = "",
        out: Out = None,
        threads: Threads = 2,
    ) -> None:
        import torch

        from eval.core.setting import Setting
        from eval.runs.fewshot import run

        torch.set_num_threads(threads)
        setting = Setting(checkpoint, kind, ensemble, dtype, trained_on)
        folds = numbers(fold, "--fold") if fold else list(range(protocol.folds))
        run(protocol, data, setting, folds, numbers(examples, "--examples"), episodes, out)

    return command


def _video_command(videos: VideoSet) -> Callable[..., None]:
    def command(
        data: DatasetFolder,
        checkpoint: Checkpoint = DEFAULT,
        split: Annotated[
            str, typer.Option(help=f"Split of the dataset. Default: {videos.split}.")
        ] = "",
        keep: Annotated[
            int | None, typer.Option(help="Frames remembered. Default: the checkpoint's own.")
        ] = None,
        rule: Annotated[
            str,
            typer.Option(
                help="Rule of memory: ours, single (ours, one object a painting) or official. "
                "Default: the checkpoint's own."
            ),
        ] = "",
        clips: Annotated[
            int | None, typer.Option(help="Largest number of clips. Default: all.", min=1)
        ] = None,
        masks: Annotated[
            bool, typer.Option(help="Write masks for the dataset's server; score nothing.")
        ] = False,
        kind: Kind = "",
        dtype: Dtype = "float32",
        trained_on: TrainedOn = "",
        out: Out = None,
        threads: Threads = 2,
    ) -> None:
        import torch

        from eval.core.setting import Setting
        from eval.runs.video import dataset

        torch.set_num_threads(threads)
        setting = Setting(checkpoint, kind, dtype=dtype, trained_on=trained_on)
        dataset(videos, data, split, setting, keep, rule, out, masks, clips)

    return command


def _ade20k(
    data: DatasetFolder,
    checkpoint: Checkpoint = DEFAULT,
    examples: Annotated[
        str, typer.Option(help="Numbers of examples a class, with commas, or none.")
    ] = "1",
    prompt: TunedPrompt = None,
    pictures: MaxImages = None,
    ensemble: Ensemble = "feature",
    kind: Kind = "",
    dtype: Dtype = "float32",
    trained_on: TrainedOn = "",
    out: Out = None,
    threads: Threads = 2,
) -> None:
    import torch

    from eval.core.setting import Setting
    from eval.runs.semantic import run

    torch.set_num_threads(threads)
    counts = numbers(examples, "--examples") if examples != "none" else []
    setting = Setting(checkpoint, kind, ensemble, dtype, trained_on)
    run(ade20k.SET, data, setting, counts, prompt, pictures, out)


def _coco_panoptic(
    data: DatasetFolder,
    checkpoint: Checkpoint = DEFAULT,
    examples: Annotated[int, typer.Option(help="Number of examples of each class.", min=1)] = 1,
    instances: Annotated[
        int, typer.Option(help="Number of examples for the painting of instances.", min=1)
    ] = 8,
    prompt: TunedPrompt = None,
    pictures: MaxImages = None,
    ensemble: Ensemble = "feature",
    kind: Kind = "",
    dtype: Dtype = "float32",
    trained_on: TrainedOn = "",
    out: Out = None,
    threads: Threads = 2,
) -> None:
    import torch

    from eval.core.setting import Setting
    from eval.runs.panoptic_run import run

    torch.set_num_threads(threads)
    setting = Setting(checkpoint, kind, ensemble, dtype, trained_on)
    run(data, setting, examples, instances, prompt, pictures, out)
