"""Links, pictures and the site of the documentation."""

import html
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

import incontext

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "incontext/checkpoints/weights"
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *(ROOT / f"{folder}/README.md" for folder in ("eval", "benchmarks", "prompts")),
    *sorted(WEIGHTS.glob("*/README.md")),
]
PICTURES = (".webp", ".gif", ".jpg", ".png")
FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
ANIMATION = ROOT / "docs/demo.webp"


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Targets of a page's links and pictures that are relative."""
    targets = re.findall(r"\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"", prose(page))
    targets = [markdown or markup for markdown, markup in targets]
    return [target for target in targets if "://" not in target and "mailto:" not in target]


def anchors(page: Path) -> set[str]:
    """Anchors that both code hosts and the site give to the headings of a page."""
    names: set[str] = set()
    for heading in re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE):
        text = unicodedata.normalize("NFKD", re.sub(r"[`*]", "", html.unescape(heading)))
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
        text = re.sub(r"[^\w\s-]", "", text, flags=re.ASCII).strip().lower()
        names.add(re.sub(r"\s", "-", text))
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in links(page):
        address, _, anchor = target.partition("#")
        path = page.parent / address if address else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name} links to {target}"


def test_anchors_are_those_of_code_hosts():
    assert "was-sonst" not in anchors(ROOT / "docs/faq.md")
    assert "9-my-objects-are-small-or-thin-or-my-images-are-huge" in anchors(ROOT / "docs/faq.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_place_is_unfilled(page):
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    assert not re.search(r"@|TODO|EXTRAS", text)


def test_pictures_exist_are_used_and_small():
    shown = {(page.parent / target).resolve() for page in PAGES for target in links(page)}
    stored = {path for path in (ROOT / "docs").iterdir() if path.suffix in PICTURES}
    assert stored == {path for path in shown if path.suffix in PICTURES}
    for path in stored:
        with Image.open(path) as image:
            assert image.width <= 1300
    assert sum(path.stat().st_size for path in stored - {ANIMATION}) < 1.5e6


def test_animation_moves_and_is_small():
    assert ANIMATION.stat().st_size < 3e6
    with Image.open(ANIMATION) as image:
        assert image.n_frames > 20
        assert image.width == 640
        assert image.info["loop"] == 0  # for ever


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: incontext\.(\w+)$", text, re.MULTILINE)) == incontext.__all__


def test_every_figure_has_a_function():
    pytest.importorskip("skimage", reason="needs scikit-image (demo extra)")
    from demos.figures import FIGURES

    stored = {path.stem for path in (ROOT / "docs").glob("*.webp")} - {ANIMATION.stem}
    assert stored == set(FIGURES)


@pytest.mark.slow
def test_site_builds_without_warnings_or_network(tmp_path):
    pytest.importorskip("mkdocstrings", reason="needs mkdocs (docs extra)")
    process = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "WARNING" not in process.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) == len(PAGES)  # README is left out, a page of error 404 is added
    for path in pages:
        text = path.read_text(encoding="utf-8")
        loads = re.findall(r"<(?:script|img|source)[^>]* src=\"?([^\"\s>]+)", text)
        loads += re.findall(r"<link[^>]*stylesheet[^>]*href=\"?([^\"\s>]+)", text)
        assert not [address for address in loads if "://" in address], path.name
    reference = (tmp_path / "site/python.html").read_text(encoding="utf-8")
    for name in incontext.__all__:
        assert f'id="incontext.{name}"' in reference


def test_links_of_the_site(monkeypatch):
    """The same Markdown serves a code host and the site."""
    pytest.importorskip("mkdocs", reason="needs mkdocs (docs extra)")
    monkeypatch.syspath_prepend(ROOT / "docs")
    from hook import rewrite_links

    def rewrite(text: str, source: str = "docs/a.md", place: str = "a.md") -> str:
        return rewrite_links(text, source, place)

    assert rewrite("[x](video.md#in-python)") == "[x](video.md#in-python)"
    assert rewrite("[x](../eval/README.md)") == "[x](repository/evaluation.md)"
    assert rewrite("[x](../README.md)") == "[x](index.md)"
    assert rewrite("see [`x`](../incontext/files.py) here") == "see `x` here"
    assert rewrite("![x](demo.webp)") == "![x](demo.webp)"
    assert rewrite("[x](https://example.org/a#b)") == "[x](https://example.org/a#b)"
    block = "```\n[x](../eval/README.md)\n```\n"
    assert rewrite(block + "[x](../CHANGELOG.md)") == block + "[x](repository/changelog.md)"
    card = "incontext/checkpoints/weights/incontext-small/README.md"
    inside = "[x](../../../../benchmarks/README.md)"
    assert rewrite(inside, card, "repository/incontext-small.md") == "[x](benchmarks.md)"
    assert rewrite("[x](docs/serve.md)", "SECURITY.md", "repository/security.md") == (
        "[x](../serve.md)"
    )
