"""ONNX predictor: examples in, label maps out, by onnxruntime and without torch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from incontext.checkpoints import location
from incontext.checkpoints.onnx_sessions import (
    METADATA,
    Sessions,
    cache_folder,
    check_package,
    has_graphs,
    read_description,
)
from incontext.errors import InputError, check_count, check_share
from incontext.images.data_mask import data_mask
from incontext.images.image import ImageLike, read_image, resize_nearest
from incontext.inference.example import Example
from incontext.inference.example_views import resolve_views
from incontext.inference.id_table import (
    CLASSES_PER_PASS,
    align_examples,
    assign_colorings,
    check_names,
    collect_names,
    display_colors,
)
from incontext.inference.onnx.array_prompt import ArrayPrompt, Arrays
from incontext.inference.onnx.encoder import ArrayEncoder
from incontext.inference.onnx.reading import Floats, Reader, presence, softmax, upsample_rows
from incontext.inference.prompt import Pass, Prompt, check_options, draw_thumbnail
from incontext.inference.segmentation import PRESENT, Segmentation
from incontext.labels.encodings import UNKNOWN

# Options of `Predictor` that the onnx backend does not have.
TORCH_OPTIONS = ("chunk", "spill", "nearest", "coloring", "half", "tile", "skip_empty")


class OnnxPredictor:
    """A checkpoint whose examples vote, run by onnxruntime on the CPU.

    It gives what `Predictor` gives, up to rounding, and reads and writes the same prompts. It knows
    whole images, examples without unknown pixels, and no `nearest`: for the rest use `Predictor`.

    Args:
        folder: of graphs, see `from_pretrained`.
        name: of the checkpoint, noted in prompts.
        threads: None: one for each core.
    """

    def __init__(self, folder: Path, *, name: str = "", threads: int | None = None) -> None:
        check_package()
        description = read_description(folder)
        if description is None:
            raise InputError(f"{folder}: holds no graphs of this version of incontext")
        if "reading" not in description:
            raise InputError(
                f"{folder}: graphs of {description['checkpoint']}; the onnx backend runs "
                "checkpoints whose examples vote, such as incontext-votes"
            )
        self.description, self.name = description, name or description["checkpoint"]
        self.checkpoint, self.size = description["fingerprint"], description["size"]
        optimize = not description.get("optimized", False)
        self.sessions = Sessions(folder, threads, optimize)
        self.encoder = ArrayEncoder(self.sessions, description)
        self.reader = Reader.from_description(description["reading"])

    @classmethod
    def from_pretrained(
        cls, source: str | Path = location.DEFAULT, *, threads: int | None = None,
        local_files_only: bool = False, name: str = "",
    ) -> "OnnxPredictor":  # fmt: skip
        """Open a bundled, local or hub checkpoint, or a folder that `export onnx` wrote.

        Graphs of a checkpoint are made once, which takes some minutes and torch, and kept in the
        user's cache (`XDG_CACHE_HOME`, by default ~/.cache).

        Raises:
            InputError: no such checkpoint, one whose examples do not vote, or a missing package.
        """
        check_package()
        if (Path(source) / METADATA).is_file():
            return cls(Path(source), name=name, threads=threads)
        weights = location.locate(source, local_files_only=local_files_only)
        name, folder = name or location.display_name(source), cache_folder(weights)
        if not has_graphs(folder):
            from incontext.checkpoints.checkpoint import load
            from incontext.checkpoints.onnx_export import write_cache

            write_cache(load(weights), folder, name)
        return cls(folder, name=name, threads=threads)

    def prompt(
        self,
        examples: Example | Sequence[Example],
        *,
        kind: str = "semantic",
        names: Mapping[int, str] | None = None,
        classes_per_pass: int = CLASSES_PER_PASS,
        crop: bool = False,
        thin_to: int | Literal["auto"] | None = "auto",
        views: bool | Literal["auto"] = "auto",
        thumbnail: bool = True,
        **others: Any,
    ) -> Prompt:
        """Encode examples once, for any number of queries: see `Predictor.prompt`.

        Raises:
            InputError: what `Predictor.prompt` refuses, an option that only torch has, or examples
                with unknown pixels.
        """
        _refuse(others)
        thin_to = self.description["thinning"]["thin_to"] if thin_to == "auto" else thin_to
        check_options(kind, thin_to=thin_to)
        examples = align_examples(examples, crop)
        if any((e.labels.ids == UNKNOWN).any() for e in examples):
            raise InputError(
                "an example has unknown pixels, which the onnx backend cannot leave out; make the "
                "prompt with torch, `incontext prompt`, and pass it here"
            )
        ids = sorted({index for example in examples for index in example.labels.present})
        own_names = collect_names((e.labels.present, e.names) for e in examples)
        names = check_names({**own_names, **(names or {})}, ids)
        in_views = resolve_views(views, len(examples), votes=True)
        passes = tuple(
            self.encoder.encode(examples, coloring, kind, thin_to, in_views)
            for coloring in assign_colorings(ids, classes_per_pass, None)
        )
        colors = display_colors([e.labels for e in examples], ids)
        return Prompt(
            tuple(ids), colors, names, kind, len(examples), passes, self.checkpoint, None,
            self.name, {"by": "prompt", "nearest": None, "crop": crop, "views": in_views},
            draw_thumbnail(examples, colors) if thumbnail else None,
        )  # fmt: skip

    def load_prompt(self, path: str | Path) -> Prompt:
        """Read a prompt that `Prompt.save` wrote, of either backend.

        Raises:
            InputError: not a prompt file, or made with another checkpoint.
        """
        prompt = Prompt.load(path, arrays=True)
        self._check_prompt(prompt, f"{path}: ")
        return prompt

    def check_presence(self, min_presence: float) -> None:
        """Raise InputError unless it is a share, and there are masks to empty below it."""
        check_share("min_presence", min_presence)
        if min_presence < PRESENT and self.description["reading"]["presence"]:
            raise InputError(f"min_presence is {min_presence}; accepted here: {PRESENT} … 1")

    def predict(self, images: Any, prompt: Prompt, **options: Any) -> Any:
        """Segment one image, a list, or any iterable of images: see `Predictor.predict`.

        Args:
            batch_size: images that are read ahead; default 8.
            min_presence: see `Predictor.predict`.

        Raises:
            InputError: an image that cannot be read, or an option that only torch has.
        """
        # A tensor is an image too, and torch need not be imported to see one.
        if isinstance(images, (str, Path, Image.Image)) or hasattr(images, "__array__"):
            return next(self._stream([images], prompt, **options))
        stream = self._stream(images, prompt, **options)
        return list(stream) if isinstance(images, (list, tuple)) else stream

    def _stream(
        self, images: Iterable[ImageLike], prompt: Prompt, *, batch_size: int = 8,
        min_presence: float = PRESENT, **others: Any,
    ) -> Iterator[Segmentation]:  # fmt: skip
        _refuse(others)
        if not isinstance(prompt, Prompt):
            raise InputError(f"{type(prompt).__name__} as prompt; make it with .prompt(examples)")
        check_count("batch_size", batch_size)
        self.check_presence(min_presence)
        self._check_prompt(prompt)
        passes = [self._feed(part) for part in prompt.to_arrays().passes]
        source = iter(images)
        while batch := [read_image(image) for image in islice(source, batch_size)]:
            for image in batch:  # several at once are no faster on a CPU
                yield self._segment(image, prompt, passes, min_presence)

    def _check_prompt(self, prompt: Prompt, where: str = "") -> None:
        prompt.check_checkpoint(self.checkpoint, self.name, where)
        if prompt.example_index:
            raise InputError(f"{where}a prompt with nearest needs the torch backend")
        inputs = {node["name"] for node in self.description["graphs"]["query"]["inputs"]}
        for part in prompt.passes:
            missing = inputs - {"query"} - part.encoded_prompt.tensors().keys()
            if missing:
                raise InputError(f"{where}not a prompt, or a damaged one: no {sorted(missing)[0]}")

    def _feed(self, part: Pass) -> Arrays:
        assert isinstance(part.encoded_prompt, ArrayPrompt)
        return part.encoded_prompt.flatten(self.encoder.axes)

    def _segment(
        self, image: Image.Image, prompt: Prompt, passes: Sequence[Arrays], min_presence: float
    ) -> Segmentation:
        """Segment one image, as `decoding.decode_image` does."""
        query = self.encoder.picture(image)
        outputs = [self.sessions.run("query", query=query, **arrays) for arrays in passes]
        rows = {
            index: row
            for part, output in zip(prompt.passes, outputs, strict=True)
            for index, row in zip(part.coloring.ids, output["logits"][0], strict=True)
        }
        probabilities = softmax(np.stack([rows[index] for index in prompt.ids]))
        mask = data_mask(image)
        valid = None if mask is None else resize_nearest(mask, (self.size, self.size))
        id_presence = presence(probabilities, mask)
        is_present = id_presence >= min_presence
        quality = self.reader.quality(probabilities, valid) * is_present
        size = (image.height, image.width)
        labels, confidence = np.empty(size, np.int32), np.empty(size, np.float32)
        ids = np.array([0, *prompt.ids], np.int32)
        for band, values in upsample_rows(probabilities, size):
            label, confidence[band] = self.reader.read(values, is_present)
            labels[band] = ids[label]
        if mask is not None:
            labels[~mask], confidence[~mask] = 0, 0
        by_id = [dict(zip(prompt.ids, x.tolist(), strict=True)) for x in (id_presence, quality)]
        paintings = tuple(self._pixels(output["painting"][0]) for output in outputs)
        return Segmentation(
            labels, confidence, by_id[0], image, paintings, prompt.colors, prompt.names, by_id[1]
        )

    def _pixels(self, painting: Floats) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(3, H, W), normalized → (H, W, 3) in 0–255."""
        rgb = (painting.transpose(1, 2, 0) * self.encoder.std + self.encoder.mean) * 255
        return rgb.clip(0, 255).round().astype(np.uint8)


def _refuse(options: Mapping[str, Any]) -> None:
    """Raise InputError for options that only torch has, unless they are off.

    Raises:
        TypeError: an option that torch does not have either.
    """
    for name, value in options.items():
        if name not in TORCH_OPTIONS:
            raise TypeError(f"no option {name!r}")
        if value and name != "chunk":  # which bounds memory there and changes nothing
            raise InputError(f"{name}={value!r} needs the torch backend; the onnx backend has none")
