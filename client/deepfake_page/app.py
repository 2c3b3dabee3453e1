"""The page as one ASGI application."""

from __future__ import annotations

import gradio as gr
from deepfake_client import DeepfakeClient
from fastapi import FastAPI

from .classification import Classifier
from .events import Events
from .gate import Gate
from .layout import build_page
from .limits import MAX_WAITING_BYTES, PageLimits
from .served_model import ServedModelWatch
from .theme import CSS, JS, page_theme
from .upload_routes import add_upload_routes
from .uploads import UploadStore


def build_app(client: DeepfakeClient, limits: PageLimits, *, policy: bool, recorded: bool) -> Gate:
    """gradio's page behind our uploads and our gate; it says when there is a policy, and when verdicts are recorded."""
    store = UploadStore(MAX_WAITING_BYTES)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_upload_routes(app, store, limits)
    events = Events(Classifier(client, store, limits), ServedModelWatch(client))
    page = build_page(events, policy=policy, recorded=recorded)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,  # but of what we raise ourselves, which is one line
        max_file_size=limits.image.max_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=page_theme(),
        css=CSS,
        js=JS,
    )
    return Gate(app)
