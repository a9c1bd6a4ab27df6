"""Imports run along the arrows of the design, and the model knows tensors only."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "incontext"

# Which rooms and files at the top a room may import; docs/architecture.md draws them.
ARROWS = {
    "errors": set(),
    "files": {"errors"},
    "images": {"errors"},
    "labels": {"errors", "images"},
    "model": set(),
    "checkpoints": {"errors", "files", "labels", "model"},
    "data": {"errors", "images", "labels"},
    "inference": {"checkpoints", "errors", "files", "images", "labels", "model"},
    "training": {"checkpoints", "data", "errors", "files", "images", "model"},
    "batch": {"checkpoints", "errors", "files", "images", "inference"},
    "evaluation": {"errors", "inference", "labels"},
    "video": {"checkpoints", "errors", "files", "images", "inference", "labels", "model"},
    "formats": {"batch", "data", "errors", "files", "images", "inference", "labels"},
    "tuning": {
        "data", "errors", "evaluation", "files", "images", "inference", "labels", "model",
        "training",
    },
    "web": set(),  # public names only
    "web.page": {"web"},
    "web.server": {"web", "web.page"},
    "cli": {
        "batch", "checkpoints", "data", "errors", "evaluation", "formats", "images", "inference",
        "labels", "training", "tuning", "video", "web.page", "web.server",
    },
}  # fmt: skip

# The model's own rooms: of tokens, of votes, and what both are built of.
MODEL_ARROWS = {
    "attention": set(),
    "chunks": set(),
    "thinning": set(),
    "int8": set(),
    "loss": set(),
    "quality": set(),
    "low_rank": set(),
    "layers": {"attention", "int8"},
    "stem": {"attention", "chunks", "thinning"},
    "votes.backbone": set(),
    "votes.mixer": set(),
    "votes.pairs": set(),
    "votes.features": set(),
    "votes.painting": {"config"},
    "votes.cells": {"thinning"},
    "votes.votes": {"thinning", "votes.cells"},
    "votes.matching": {"attention", "votes.cells", "votes.votes"},
    "votes.voters": {"chunks", "thinning", "votes.cells", "votes.features", "votes.matching"},
    "votes.presence": {"thinning", "votes.cells", "votes.votes"},
    "votes.attribution": {
        "thinning", "votes.cells", "votes.features", "votes.matching", "votes.voters",
        "votes.votes",
    },
    "config": {"votes.backbone"},
    "tokens.ensemble": {"attention", "layers", "chunks"},
    "tokens.token_cache": {"chunks", "layers", "tokens.ensemble"},
    "tokens.independent": {"attention", "layers", "chunks", "thinning", "tokens.ensemble"},
    "encoded_prompt": {"stem", "tokens.token_cache", "tokens.independent", "votes.voters"},
    "tokens.encoder": {
        "chunks", "encoded_prompt", "layers", "stem", "thinning", "tokens.independent",
        "tokens.token_cache", "votes.voters",
    },
    "tokens.decoder": {"layers", "tokens.encoder"},
    "votes.voting": {
        "config", "chunks", "encoded_prompt", "layers", "quality", "stem", "thinning",
        "tokens.encoder", "votes.attribution", "votes.backbone", "votes.cells",
        "votes.features", "votes.matching", "votes.mixer", "votes.painting", "votes.pairs",
        "votes.presence", "votes.voters", "votes.votes",
    },
    "tokens.seggpt": {
        "config", "chunks", "encoded_prompt", "layers", "stem", "tokens.decoder", "tokens.encoder",
        "votes.features",
    },
    "": {"config", "loss", "tokens.seggpt", "votes.voting"},
}  # fmt: skip


def imports(source: str) -> set[str]:
    """Full names of the modules and objects that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module_name(path: Path) -> str:
    """Its full name, `incontext.labels` for the room's own file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(name: str) -> str:
    """The row of ARROWS that a module or an object of it belongs to; "": a public name."""
    parts = name.split(".")[1:]
    return next(
        (row for n in (2, 1) if (row := ".".join(parts[:n])) in ARROWS and len(parts) >= n), ""
    )


def forbidden(room: str, source: str) -> set[str]:
    """Rooms that a file of a room imports against the arrows."""
    inside = {name for name in imports(source) if name.partition(".")[0] == "incontext"}
    return {room_of(name) for name in inside} - {"", room} - ARROWS[room]


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_arrows(path):
    if path.parent == PACKAGE and path.name in ("__init__.py", "__main__.py"):
        return
    room = room_of(module_name(path))
    assert room, f"{path.relative_to(ROOT)} is in no room: add one to ARROWS"
    against = forbidden(room, path.read_text(encoding="utf-8"))
    assert not against, f"{room} may not import {sorted(against)}"


def test_arrow_against_the_design_is_refused():
    assert forbidden("labels", "from incontext.inference.prompt import Prompt") == {"inference"}
    assert forbidden("web", "from incontext.labels.coloring import Palette") == {"labels"}
    assert forbidden("inference", "import incontext.labels.coloring") == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "model").rglob("*.py")), ids=module_name)
def test_arrows_of_the_model(path):
    module = module_name(path).removeprefix("incontext.model").removeprefix(".")
    if module in ("tokens", "votes"):  # their __init__ holds a docstring
        return
    assert module in MODEL_ARROWS, f"{module} has no row in MODEL_ARROWS"
    imported = set()
    for name in imports(path.read_text(encoding="utf-8")):
        if name.startswith("incontext.model."):
            inner = name.removeprefix("incontext.model.")
            imported.add(
                max((row for row in MODEL_ARROWS if f"{inner}.".startswith(f"{row}.")), key=len)
            )
    against = imported - MODEL_ARROWS[module]
    assert not against, f"{module} may not import {sorted(against)}"


@pytest.mark.parametrize("arrows", [ARROWS, MODEL_ARROWS], ids=["rooms", "model"])
def test_no_cycles(arrows):
    TopologicalSorter(arrows).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter({**arrows, **{"errors": {"cli"}, "attention": {""}}}).prepare()


def test_rooms_are_small():
    """Nobody reads more than 14 names at once."""
    for folder in [PACKAGE, *(p for p in PACKAGE.rglob("*") if p.is_dir())]:
        files = [p for p in folder.glob("*.py") if not p.name.startswith("__")]
        assert len(files) <= 14, f"{folder.relative_to(ROOT)} holds {len(files)} files"
    entries = {p.name for p in PACKAGE.iterdir() if not p.name.startswith("__")} - {"py.typed"}
    assert len(entries) <= 16


def test_model_is_tensors_only():
    allowed = {
        "collections", "dataclasses", "einops", "incontext", "math", "torch", "typing", "warnings",
    }  # fmt: skip
    for path in (PACKAGE / "model").rglob("*.py"):
        roots = {name.partition(".")[0] for name in imports(path.read_text(encoding="utf-8"))}
        assert roots <= allowed, f"{path.name} imports {sorted(roots - allowed)}"


@pytest.mark.parametrize("folder", ["incontext/web", "demos"])
def test_public_names_only(folder):
    import incontext

    public = {f"incontext.{name}" for name in incontext.__all__} | {"incontext"}
    for path in (ROOT / folder).rglob("*.py"):
        if path == ROOT / "demos/__main__.py":  # is the command line
            continue
        names = {
            name for name in imports(path.read_text(encoding="utf-8"))
            if name.partition(".")[0] == "incontext" and not name.startswith("incontext.web.")
        }  # fmt: skip
        assert names <= public, f"{path.name} uses {sorted(names - public)}"


def test_the_package_needs_nothing_beside_it():
    """Only `incontext` is installed from a wheel."""
    beside = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"incontext"}
    for path in PACKAGE.rglob("*.py"):
        roots = {name.partition(".")[0] for name in imports(path.read_text(encoding="utf-8"))}
        assert not roots & beside, f"{path.name} imports {sorted(roots & beside)}"
