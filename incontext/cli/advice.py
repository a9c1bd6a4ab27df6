"""What to do next, for whoever gives no command or a file instead of one."""

from difflib import get_close_matches
from pathlib import Path
from shlex import quote

VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".gif")
WELCOME = """\
Segment pictures by example: show a few with masks, get masks for the rest.

  incontext demo                                         paint examples in the browser
  incontext segment --example IMAGE MASK --out OUT DIR   mask a folder of images
  incontext video CLIP --labels MASK --out OUT           follow objects through a video
  incontext doctor DIR                                   check examples before a large run
  incontext check                                        check the installation

All commands: incontext --help. One of them: incontext segment --help."""


def advise(word: str, commands: list[str]) -> str:
    """Say what to do with a word that is no command: a path, or a command with a typing error."""
    path = Path(word)
    if path.is_dir():
        return _advise_folder(path)
    if path.is_file():
        return _advise_file(path)
    similar = get_close_matches(word, commands, 3)
    if similar:
        return f"no command {word!r}; did you mean {' or '.join(similar)}?"
    return (
        f"no command {word!r}, and no file or folder of that name; accepted: {', '.join(commands)}"
    )


def _advise_folder(folder: Path) -> str:
    """Say what fits the content of a folder."""
    names = [entry.name for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    where = quote(str(folder))
    if "results.json" in names:
        return (
            f"{folder} holds results. For other tools: incontext export {where} --to coco "
            "--out results.coco.json"
        )
    if {"images", "labels"} <= set(names):
        return (
            f"{folder} is a set of labelled images. Check it: incontext doctor {where}; learn a "
            f"prompt from it: incontext tune {where} --out scene.safetensors"
        )
    return (
        f"{folder} is a folder. To segment its images, show one of them with its mask: incontext "
        f"segment --example IMAGE MASK --out results {where}; to paint the mask: incontext demo"
    )


def _advise_file(path: Path) -> str:
    """Say what fits a file, by the end of its name."""
    name, where = path.name.lower(), quote(str(path))
    if name.endswith(VIDEOS):
        return (
            f"{path} is a video. To follow objects in it, give the mask of its first frame: "
            f"incontext video {where} --labels MASK --out results"
        )
    if name.endswith((".safetensors", ".pth")):
        return (
            f"{path} holds weights or a prompt. What it is: incontext info {where}; segment with a "
            f"prompt: incontext segment --prompt {where} --out results DIR"
        )
    if name.endswith((".json", ".xml", ".zip")):
        return (
            f"{path} may hold annotations. To show them as examples: incontext segment "
            f"--examples-from {where} --images DIR --out results DIR"
        )
    from incontext.images.folder import INPUT_SUFFIXES
    from incontext.images.volume import SUFFIXES

    if not name.endswith(tuple(INPUT_SUFFIXES)):
        return f"{path} is a file that is no image, and no command; see: incontext --help"
    kind = "a volume" if name.endswith(SUFFIXES) else "an image"
    return (
        f"{path} is {kind}. To segment it, show an example: incontext segment --example IMAGE MASK "
        f"--out results {where}; to paint the mask: incontext demo"
    )
