"""What mkdocs has to do so that one Markdown serves a code host and the site (see mkdocs.yml).

On a code host a page links to files of the repository by relative paths. The site holds fewer files
and has some of them elsewhere. So this hook

1. adds the pages that live outside of docs/, under repository/;
2. rewrites each relative link: to a page, that page's place in the site; to a picture or another
   file of docs/, as it is; to any other file of the repository, plain text without a link.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
WEIGHTS = "incontext/checkpoints/weights"
# Pages outside of docs/: where they are in the repository, and in the site.
EXTRA_PAGES = {
    "eval/README.md": "repository/evaluation.md",
    "benchmarks/README.md": "repository/benchmarks.md",
    "prompts/README.md": "repository/prompts.md",
    f"{WEIGHTS}/incontext-votes/README.md": "repository/incontext-votes.md",
    f"{WEIGHTS}/incontext-small/README.md": "repository/incontext-small.md",
    "CHANGELOG.md": "repository/changelog.md",
    "CONTRIBUTING.md": "repository/contributing.md",
    "SECURITY.md": "repository/security.md",
}
# README is the front page of a code host; the site has this one instead.
FRONT_PAGE = {"README.md": "index.md"}

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
# What looks like a link in a block of code is none. A fence may be indented, as in a list.
FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)


def site_place(path: str) -> str | None:
    """Return where the site has a file of the repository, None if it has it nowhere."""
    if path in EXTRA_PAGES or path in FRONT_PAGE:
        return (EXTRA_PAGES | FRONT_PAGE)[path]
    is_file = (ROOT / path).is_file()
    return path.removeprefix("docs/") if path.startswith("docs/") and is_file else None


def rewrite_links(markdown: str, source: str, place: str) -> str:
    """Rewrite the links of a page, whose path in the repository is `source`, for the site."""

    def rewrite(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        address, hash_sign, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:") or not address:
            return match.group()
        path = os.path.normpath(os.path.join(os.path.dirname(source), address))
        site_path = site_place(path.replace(os.sep, "/"))
        if site_path is None:
            return text
        relative = os.path.relpath(site_path, os.path.dirname(place) or ".").replace(os.sep, "/")
        return f"{mark}[{text}]({relative}{hash_sign}{anchor})"

    parts, position = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(rewrite, markdown[position : fence.start()]), fence.group()]
        position = fence.end()
    return "".join([*parts, LINK.sub(rewrite, markdown[position:])])


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside of docs/."""
    for source, place in EXTRA_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Rewrite the links of every page."""
    place = page.file.src_uri
    sources = {site_path: path for path, site_path in EXTRA_PAGES.items()}
    return rewrite_links(markdown, sources.get(place, f"docs/{place}"), place)
