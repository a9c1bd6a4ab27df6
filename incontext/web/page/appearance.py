"""Appearance: theme, style sheet and script of the page; limits that Gradio keeps."""

import json
import warnings
from pathlib import Path
from typing import Any

import gradio as gr

from incontext.web.limits import MAX_UPLOAD
from incontext.web.page.shortcuts import SHORTCUTS

ASSETS = Path(__file__).parent / "assets"


def appearance() -> dict[str, Any]:
    """Return Gradio's options for the look and limits of the page; fonts are the visitor's own.

    Dark or light is as the visitor's system has it, or as `?__theme=dark` in the address says.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module="gradio")
    mono = ["ui-monospace", "monospace"]
    theme = gr.themes.Soft(primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=mono)
    return {
        "max_file_size": MAX_UPLOAD, "theme": theme, "head": head(), "run_history": False,
        "footer_links": ["api", "settings"], "ssr_mode": False, "pwa": False,
        "enable_monitoring": False,
    }  # fmt: skip


def head() -> str:
    """Return style sheet and script of the page, with the table of shortcuts that it reads.

    The style sheet goes past Gradio's `css`, which rewrites selectors and loses some.
    """
    table = [[s.key, s.selector, s.text] for s in SHORTCUTS]
    script = (ASSETS / "page.js").read_text(encoding="utf-8")
    css = (ASSETS / "page.css").read_text(encoding="utf-8")
    script = f"const shortcuts = {json.dumps(table)};\n{script}"
    return f"<style>\n{css}</style>\n<script>\n{script}</script>"
