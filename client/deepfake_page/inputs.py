"""gradio's inputs, which hand over the ticket of an upload in place of a file on a disk."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta


async def _unmoved(self: Any, path: Any) -> Any:  # noqa: ARG001 - a method
    """In place of what gradio does with the path of a file, which comes from whoever calls: it would fetch an address,
    from wherever the page runs, and copy a file of this machine. Here it is a ticket and nothing else."""
    return path


def _ticket(self: Any, payload: Any) -> str | None:  # noqa: ARG001
    return None if payload is None else str(payload.path or "")


def _tickets(self: Any, payload: Any) -> list[str]:  # noqa: ARG001
    if payload is None:
        return []
    files = getattr(payload, "root", payload)  # of several, or of one
    return [str(file.path or "") for file in (files if isinstance(files, list) else [files])]


def _with_tickets(base: type[Any], preprocess: Callable[[Any, Any], Any]) -> Any:
    """A class that extends `base`; instances cannot be changed, because gradio makes new ones for each visitor."""
    methods = {
        "__module__": __name__,
        "is_template": True,  # to the browser it is what it extends
        "preprocess": preprocess,
        "async_move_resource_to_block_cache": _unmoved,
    }
    # Not by a class statement: gradio's own metaclass would write a stub file beside this module.
    return ABCMeta.__new__(ComponentMeta, f"{base.__name__}WithTickets", (base,), methods)


#: `gr.Image` for upload, paste and camera; its value is a ticket, or None. The bytes are not touched.
ImageInput = _with_tickets(gr.Image, _ticket)
#: `gr.File` for several images; its value is a list of tickets.
ImagesInput = _with_tickets(gr.File, _tickets)
