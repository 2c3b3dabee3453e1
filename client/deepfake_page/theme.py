"""How the page looks: gradio's default theme in the fonts of the system, which no other host has to send."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

CSS = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
JS = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")


def page_theme() -> gr.themes.Base:
    """The theme."""
    return gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=_FONTS, font_mono=_MONO)
