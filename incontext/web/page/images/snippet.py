"""Snippet: what was done in the tab as Python code and as a command, and the files for both."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from incontext.web.file_names import client_name, client_names
from incontext.web.page.painting import Array, label_picture
from incontext.web.page.segmenting import SegmentRequest
from incontext.web.page.session import SEGMENT, DraftExample, Session, pack

UNKNOWN = 255  # in the masks of examples that are painted in part
MAX_LINE = 90


def write(
    session: Session, drafts: Sequence[DraftExample], targets: Sequence[str],
    options: SegmentRequest, default_checkpoint: str,
) -> dict[str, str]:  # fmt: skip
    """Write the examples into examples.zip, and return the code by the names of the panel's fields.

    Args:
        drafts: the examples; none if a prompt file was used.
        targets: uploaded pictures; the code calls them as their visitor does.
    """
    files = write_examples(session.folders[SEGMENT], drafts)
    names = client_names(map(client_name, targets))
    checkpoint = options.checkpoint or default_checkpoint
    has_unknown = any(draft.partly for draft in drafts)
    arguments = (files, names, options, checkpoint, has_unknown)
    return {"python": python_code(*arguments), "shell": shell_command(*arguments)}


def code_block(code: str, language: str) -> str:
    """Return code as Markdown, which gets a button that copies it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}{language}\n{code}{fence}"


def write_examples(folder: Path, drafts: Sequence[DraftExample]) -> list[tuple[str, str]]:
    """Write pictures and masks into examples.zip; returns the names of each pair."""
    pairs, content = [], []
    work = folder / "examples"
    for number, draft in enumerate(drafts, 1):
        work.mkdir(exist_ok=True)
        pair = (f"example{number}.png", f"example{number}_mask.png")
        draft.picture.save(work / pair[0])
        label_picture(_mark_unknown(draft)).save(work / pair[1])
        pairs.append(pair)
        content += [(work / name, name) for name in pair]
    if content:
        pack(folder / "examples.zip", content)
    return pairs


def _mark_unknown(draft: DraftExample) -> Array:
    return np.where(draft.ids == 0, UNKNOWN, draft.ids) if draft.partly else draft.ids


def python_code(
    examples: Sequence[tuple[str, str]], targets: Sequence[str], options: SegmentRequest,
    checkpoint: str, has_unknown: bool = False,
) -> str:  # fmt: skip
    """Return a program that segments the same pictures.

    Args:
        examples: file names of pictures and masks; none: `options.prompt` is used.
        targets: file names.
        has_unknown: whether 255 in masks means unknown.
    """
    lines = ["from pathlib import Path", ""]
    lines += ["from incontext import Predictor" if options.prompt else
              "from incontext import Example, Predictor", ""]  # fmt: skip
    lines.append(f"predictor = Predictor.from_pretrained({_quote(checkpoint)})")
    if options.prompt:
        lines.append(f"prompt = predictor.load_prompt({_quote(client_name(options.prompt))})")
    else:
        ignore = f", ignore={UNKNOWN}" if has_unknown else ""
        calls = [f"Example({_quote(i)}, {_quote(m)}{ignore})" for i, m in examples]
        lines += _list("examples", calls)
        lines.append(f"prompt = predictor.prompt({', '.join(['examples', *_prompt(options)])})")
    lines += _list("files", [_quote(name) for name in targets])
    stems = [PurePosixPath(name).stem for name in targets]
    stem = "Path(file).stem" if len(set(stems)) == len(stems) else "Path(file).name"
    lines += [
        "for file in files:",
        f"    result = predictor.predict({', '.join(['file', 'prompt', *_predict(options)])})",
        f'    result.save("masks", {stem})',
        "    print(file, result.quality)",
    ]
    return "\n".join(lines) + "\n"


def _prompt(options: SegmentRequest) -> list[str]:
    """Return the keywords of `Predictor.prompt`."""
    words = [] if options.kind == "semantic" else [f"kind={_quote(options.kind)}"]
    if options.names:
        names = ", ".join(f"{i}: {_quote(name)}" for i, name in options.names.items())
        words.append(f"names={{{names}}}")
    return words + (["crop=True"] if options.tile else [])


def _predict(options: SegmentRequest) -> list[str]:
    """Return the keywords of `Predictor.predict`."""
    words = [f"tile={options.tile}"] if options.tile else []
    is_default = options.min_presence == SegmentRequest.min_presence
    return words + ([] if is_default else [f"min_presence={options.min_presence:g}"])


def _list(name: str, items: Sequence[str]) -> list[str]:
    line = f"{name} = [{', '.join(items)}]"
    if len(line) <= MAX_LINE:
        return [line]
    return [f"{name} = [", *(f"    {item}," for item in items), "]"]


def _quote(text: str) -> str:
    """Return a text as Python writes it, in double quotes."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def shell_command(
    examples: Sequence[tuple[str, str]], targets: Sequence[str], options: SegmentRequest,
    checkpoint: str, has_unknown: bool = False,
) -> str:  # fmt: skip
    """Return the command that segments the same pictures; see `python_code`."""
    parts = [["incontext", "segment", *map(_path, targets)], ["--out", "results"]]
    if options.prompt:
        parts.append(["--prompt", _path(client_name(options.prompt))])
    else:
        parts += [["--example", *pair] for pair in examples]
        parts += [["--name", f"{i}={name}"] for i, name in options.names.items()]
        parts += [["--ignore", str(UNKNOWN)]] if has_unknown else []
        parts += [] if options.kind == "semantic" else [["--kind", options.kind]]
        parts += [["--crop"]] if options.tile else []
    parts += [["--tile", str(options.tile)]] if options.tile else []
    if options.min_presence != SegmentRequest.min_presence:
        parts.append(["--presence", f"{options.min_presence:g}"])
    parts.append(["--checkpoint", checkpoint])
    return " \\\n  ".join(shlex.join(part) for part in parts) + "\n"


def _path(name: str) -> str:
    """Return a file name that is no option."""
    return f"./{name}" if name.startswith("-") else name
