"""Engines: who segments the images of a run. This process, several, or a cluster."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from incontext.batch.inputs import InputImage
from incontext.batch.manifest import Manifest
from incontext.batch.segment import OnResult, segment_files
from incontext.checkpoints.location import bundled
from incontext.errors import InputError, check_count

if TYPE_CHECKING:
    from incontext.inference.onnx.predictor import OnnxPredictor
    from incontext.inference.predictor import Predictor
    from incontext.inference.prompt import Prompt

# With the module of each, whose `run` does the work; they import torch.
ENGINES = {"processes": "incontext.batch.processes", "ray": "incontext.batch.ray_engine"}
LOCAL = "local"


def check_engine(engine: str, workers: int | None) -> None:
    """Raise InputError unless these options go together."""
    if engine not in (LOCAL, *ENGINES):
        raise InputError(f"--engine {engine!r}; accepted: {', '.join((LOCAL, *ENGINES))}")
    check_count("--workers", workers)
    if workers is not None and engine == LOCAL:
        raise InputError(f"--workers goes with --engine {' or '.join(ENGINES)}")


def segment_with(
    engine: str,
    workers: int | None,
    predictor: "Predictor | OnnxPredictor",
    prompt: "Prompt",
    images: Sequence[InputImage],
    manifest: Manifest,
    *,
    checkpoint: str,
    device: str,
    dtype: str,
    on_result: OnResult,
    **options: Any,
) -> None:
    """Segment images with an engine; see `segment_files`.

    Args:
        workers: None: one for each GPU, or for each core.
        checkpoint, device, dtype: what workers load, as `predictor` was.
    """
    if engine == LOCAL:
        segment_files(predictor, prompt, images, manifest, on_result=on_result, **options)
        return
    from incontext.batch.worker import Job

    # Workers may have another working directory.
    path = Path(checkpoint)
    source = str(path.absolute()) if checkpoint not in bundled() and path.exists() else checkpoint
    folder, state = manifest.folder.absolute(), manifest.state.absolute()
    job = Job(source, device, dtype, prompt, folder, state, manifest.head, options)
    with manifest.collect_journals():
        import_module(ENGINES[engine]).run(job, images, workers, on_result)
