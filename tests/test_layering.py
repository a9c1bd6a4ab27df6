"""Imports run along the arrows of the design, and the model knows tensors only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "incontext"

# Who may import whom inside the package; what stands on the left imports what stands on the right.
ARROWS = {
    "errors": set(),
    "raster": {"errors"},
    "image": {"errors", "raster"},
    "coco": {"errors"},
    "color_mask": {"coco", "errors"},
    "labels": {"coco", "color_mask", "errors", "image"},
    "color": {"color_mask", "errors", "labels"},
    "model.attention": set(),
    "model.parts": set(),
    "model.thinning": set(),
    "model.int8": set(),
    "model.layers": {"model.attention", "model.int8"},
    "model.ensemble": {"model.attention", "model.layers", "model.parts"},
    "model.independent": {
        "model.attention", "model.ensemble", "model.layers", "model.parts", "model.thinning",
    },
    "model.stem": {"model.attention", "model.parts", "model.thinning"},
    "model.backbone": set(),
    "model.votes": {"model.parts", "model.thinning"},
    "model.mixer": set(),
    "model.pairs": set(),
    "model.encoder": {
        "model.ensemble", "model.independent", "model.layers", "model.parts", "model.stem",
        "model.thinning", "model.votes",
    },
    "model.matching": {"model.attention", "model.votes"},
    "model.voting": {
        "model.backbone", "model.config", "model.encoder", "model.layers", "model.matching",
        "model.mixer", "model.pairs", "model.parts", "model.stem", "model.thinning",
        "model.votes",
    },
    "model.decoder": {"model.encoder", "model.layers"},
    "model.seggpt": {
        "model.config", "model.decoder", "model.encoder", "model.layers", "model.parts",
        "model.stem", "model.voting",
    },
    "model.config": {"model.backbone"},
    "model": {"model.config", "model.seggpt", "model.voting"},
    "pretrained": {"errors", "model", "model.backbone"},
    "convert": {"model"},
    "hub": {"errors"},
    "checkpoint": {"convert", "errors", "hub", "model"},
    "spill": {"model.parts"},
    "gallery": set(),
    "partial": {"color_mask", "errors", "image", "labels"},
    "example": {"color_mask", "image", "labels", "partial"},
    "thumbnail": {"color_mask", "example", "image"},
    "prompt": {
        "color", "color_mask", "errors", "example", "gallery", "labels", "model.encoder",
        "thumbnail", "tiles",
    },
    "segmentation": {"color_mask", "errors", "image", "labels"},
    "tiles": {"errors"},
    "belief": {"prompt", "segmentation", "tiles"},
    "predictor": {
        "belief", "checkpoint", "color", "color_mask", "errors", "example", "gallery", "image",
        "labels", "model", "model.encoder", "model.int8", "model.parts", "partial", "prompt",
        "segmentation", "spill", "thumbnail",
    },
    "lock": {"errors"},
    "confusion": set(),
    "pool": {"color_mask", "errors", "example", "labels", "partial", "prompt"},
    "trial": {"belief", "confusion", "pool", "predictor", "prompt"},
    "verdict": {"confusion"},
    "subsets": {"confusion", "pool", "trial", "verdict"},
    "findings": {"confusion", "pool", "trial"},
    "doctor": {
        "confusion", "errors", "example", "findings", "pool", "predictor", "subsets", "trial",
    },
    "doctor_report": {"doctor", "findings", "pool", "segmentation", "thumbnail"},
    "learned": {"color", "labels", "model", "model.encoder", "pool", "predictor"},
    "tuner": {
        "color", "confusion", "errors", "labels", "learned", "model", "objective", "pool",
        "predictor", "prompt", "trial", "views",
    },
    "untuned": {"pool", "predictor", "prompt", "subsets", "trial"},
    "tuning": {
        "color", "color_mask", "confusion", "errors", "example", "lock", "model.int8", "pool",
        "predictor", "prompt", "subsets", "thumbnail", "trial", "tuner", "untuned", "verdict",
    },
    "tuning_report": {"errors", "tuning"},
    "frames": {"errors", "image"},
    "movie": {"errors", "frames", "image"},
    "sources": {"errors", "frames", "image", "movie"},
    "rules": {"color", "errors", "labels", "predictor", "segmentation"},
    "memory": {
        "color", "color_mask", "errors", "example", "image", "labels", "model.encoder", "partial",
        "predictor", "prompt", "rules", "segmentation",
    },
    "drift": {"segmentation"},
    "video": {
        "checkpoint", "color_mask", "drift", "errors", "example", "frames", "labels", "memory",
        "predictor", "prompt", "rules", "segmentation", "sources",
    },
    "video_overlay": {"color_mask", "frames", "labels", "movie", "segmentation"},
    "video_run": {
        "coco", "color_mask", "drift", "errors", "frames", "labels", "lock", "segmentation",
        "video", "video_overlay",
    },
    "formats.found": {"color_mask", "errors", "image", "labels"},
    "formats.brush": {"errors"},
    "formats.links": {"errors"},
    "formats.labelled": {"color_mask", "entries", "errors", "formats.found", "labels"},
    "formats.outline": {"errors"},
    "formats.ours": {"errors"},
    "formats.coco": {
        "coco", "color_mask", "errors", "formats.found", "formats.labelled", "formats.ours",
        "formats.outline", "labels", "segmentation",
    },
    "formats.yolo": {
        "coco", "errors", "formats.found", "formats.labelled", "formats.links", "formats.outline",
        "image", "labels", "segmentation",
    },
    "formats.voc": {
        "color_mask", "errors", "formats.found", "formats.labelled", "formats.links", "labels",
        "segmentation",
    },
    "formats.label_studio": {
        "coco", "color_mask", "errors", "formats.brush", "formats.found", "formats.labelled",
        "formats.ours", "labels", "segmentation",
    },
    "formats.cvat": {
        "coco", "color_mask", "errors", "formats.found", "formats.labelled", "formats.ours",
        "labels", "segmentation",
    },
    "formats.geotiff": {"errors", "formats.found", "formats.labelled", "labels"},
    "formats": {
        "entries", "errors", "formats.coco", "formats.cvat", "formats.geotiff",
        "formats.label_studio", "formats.labelled", "formats.ours", "formats.voc", "formats.yolo",
    },
    "formats.examples": {
        "color_mask", "errors", "example", "formats", "formats.coco", "formats.cvat",
        "formats.found", "formats.geotiff", "formats.label_studio", "formats.labelled",
        "formats.voc", "formats.yolo", "image", "labels", "partial", "pictures",
    },
    "graphs": {"model", "model.encoder", "model.independent", "model.votes"},
    "portable": {"checkpoint", "color", "errors", "graphs", "model", "model.int8"},
    "cli_export": {
        "arguments", "checkpoint", "cli_device", "errors", "formats", "model", "portable",
    },
    "targets": {"errors", "image"},
    "journal": {"errors", "lock", "targets"},
    "entries": {"errors", "journal", "targets"},
    "manifest": {"entries", "errors", "journal", "lock", "prompt", "targets"},
    "batch": {
        "errors", "image", "journal", "manifest", "predictor", "prompt", "segmentation", "targets",
    },
    "worker": {"batch", "entries", "journal", "predictor", "prompt", "targets"},
    "processes": {"batch", "errors", "targets", "worker"},
    "ray_engine": {"batch", "errors", "processes", "targets", "worker"},
    "engines": {
        "batch", "checkpoint", "errors", "manifest", "predictor", "processes", "prompt",
        "ray_engine", "targets", "worker",
    },
    "cli_segment": {"batch", "engines", "manifest", "predictor", "prompt", "targets"},
    "scenes": set(),
    "canvas": set(),
    "pictures": {"errors", "image"},
    "regions": {"errors", "pictures"},
    "views": {"pictures"},
    "plan": {"pictures", "views"},
    "episodes": {"color", "pictures", "plan", "regions", "scenes", "views"},
    "model.low_rank": set(),
    "objective": {
        "episodes", "model", "model.encoder", "model.votes", "model.voting", "pictures",
    },
    "validation": {"model", "pictures"},
    "run_log": {"errors", "pictures", "validation"},
    "recipe": {"canvas", "checkpoint", "errors", "model", "objective", "plan"},
    "train": {
        "checkpoint", "episodes", "errors", "model", "model.low_rank", "objective", "pictures",
        "plan", "pretrained", "recipe", "run_log", "validation",
    },
    "finetune": {
        "checkpoint", "errors", "model", "model.low_rank", "pictures", "plan", "recipe", "train",
        "validation",
    },
    "arguments": {"errors"},
    "cli_training": {"arguments", "finetune", "train"},
    "cli_examples": {
        "arguments", "errors", "example", "formats.examples", "predictor", "prompt", "targets",
    },
    "cli_checkpoint": {"checkpoint", "convert", "errors", "prompt"},
    "cli_progress": set(),
    "cli_demo": {"arguments", "checkpoint", "errors"},
    "cli_serve": {"arguments", "checkpoint", "cli_device", "errors"},
    "cli_device": {"checkpoint", "errors", "predictor"},
    "cli_tuning": {
        "arguments", "checkpoint", "cli_device", "cli_examples", "cli_progress", "doctor",
        "doctor_report", "errors", "example", "pictures", "pool", "prompt", "tuner", "tuning",
        "tuning_report",
    },
    "cli_video": {
        "arguments", "checkpoint", "cli_device", "cli_examples", "cli_progress", "coco", "errors",
        "frames", "memory", "movie", "rules", "sources", "targets", "video", "video_run",
    },
    "cli": {
        "arguments", "checkpoint", "cli_checkpoint", "cli_device", "cli_examples",
        "cli_demo", "cli_export", "cli_serve", "cli_training", "cli_tuning", "cli_video", "errors",
        "prompt", "targets", "cli_segment", "engines", "tiles",
    },
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "incontext").with_suffix("").parts).removesuffix(
        ".__init__"
    )


@pytest.mark.parametrize("name", sorted(module_name(p) for p in PACKAGE.rglob("*.py")))
def test_arrows(name):
    path = PACKAGE / f"{name.replace('.', '/')}.py"
    path = path if path.is_file() else PACKAGE / name.replace(".", "/") / "__init__.py"
    if name in ("__init__", "__main__"):
        return
    assert name in ARROWS, f"{name} has no place in the design: add it to ARROWS"
    inside = {i.removeprefix("incontext.") for i in imports(path) if i.startswith("incontext.")}
    used = {i for i in inside if i in ARROWS}
    allowed = ARROWS[name] | {part for a in ARROWS[name] for part in (a.partition(".")[0],)}
    assert used <= allowed, f"{name} may not import {sorted(used - allowed)}"


def test_no_cycles():
    done: set[str] = set()
    rest = dict(ARROWS)
    while rest:
        ready = {name for name, needs in rest.items() if needs <= done}
        assert ready, f"a cycle among {sorted(rest)}"
        done |= ready
        rest = {name: needs for name, needs in rest.items() if name not in ready}


def test_model_is_tensors_only():
    allowed = {"torch", "dataclasses", "math", "collections", "typing", "warnings", "incontext"}
    for path in (ROOT / "incontext/model").glob("*.py"):
        roots = {name.partition(".")[0] for name in imports(path)}
        assert roots <= allowed, f"{path.name} imports {sorted(roots - allowed)}"


def test_demos_use_public_names():
    import incontext

    public = {f"incontext.{name}" for name in incontext.__all__} | {"incontext"}
    for path in (ROOT / "demos").glob("*.py"):
        if path.name == "__main__.py":  # is the command line
            continue
        used = {name for name in imports(path) if name.startswith("incontext")}
        assert used <= public, f"{path.name} uses {sorted(used - public)}"
