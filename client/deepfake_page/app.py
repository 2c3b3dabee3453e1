"""The page: what stands where, what happens on which event, and the ASGI application of it all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread
import gradio as gr
from deepfake_client import DeepfakeClient, Failure, ImageLimits
from fastapi import FastAPI

from .classification import MAX_IMAGES, Answer, Classifier, ServedModelWatch, Upload
from .guard import Guard
from .markup import TITLE, batch_results, fragments
from .uploads import Uploads

#: Every so many seconds gradio removes uploads that nobody asked a verdict for in so many; more than any wait here.
DELETE_CACHE = (60, 600)
# Events that wait for their turn; one over it is told to come back later.
_MAX_QUEUE = 64
# Single images, and batches, that are decoded and asked for at a time.
_SINGLES = 4
_BATCHES = 2
# How often an open page looks whether the server is still there and has the same weights.
_LOOK_SECONDS = 5
# Of the system, which no other host has to send.
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
_HERE = Path(__file__).parent


def build_app(
    client: DeepfakeClient, folder: Path, *, policy: bool, recorded: bool
) -> tuple[Guard, Callable[[], None]]:
    """The application to serve, and what ends the connection that each open page holds.

    `folder` is that of `memory_folder`. `policy` and `recorded`: whether the verdicts come with a decision, and whether
    there is a verdict log.
    """
    uploads = Uploads(folder)
    events = _Events(Classifier(client, uploads), ServedModelWatch(client))
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        _build_page(events, policy=policy, recorded=recorded),
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,  # but of what we raise ourselves, which is one line
        max_file_size=ImageLimits().max_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=_FONTS, font_mono=_MONO),
        css_paths=_HERE / "page.css",
        js=(_HERE / "page.js").read_text(encoding="utf-8"),
    )
    mounted: Any = app.routes[-1]
    return Guard(app, uploads), mounted.app.stop_event.set


class _Events:
    """Methods for gradio to call. `shown` is the status that a visitor's page shows already."""

    def __init__(self, classifier: Classifier, watch: ServedModelWatch) -> None:
        self._classifier = classifier
        self._watch = watch

    def look(self, shown: str) -> Any:
        """Status. What has not changed is left alone, or it would be read aloud again."""
        status = fragments.model_status(self._watch.look())
        return gr.skip() if status == shown else status

    async def one(self, file: Mapping[str, Any] | None) -> tuple[Any, ...]:
        """Verdict, status, and the input, which is emptied."""
        if file is None:
            return gr.skip(), gr.skip(), None
        answer = await self._classifier.classify(_upload(file))
        served = await anyio.to_thread.run_sync(self._watch.look, 0.0)
        return fragments.verdict_card(answer, served), fragments.model_status(served), None

    async def several(self, files: Sequence[Mapping[str, Any]] | None) -> AsyncIterator[tuple[Any, ...]]:
        """Verdicts, status, and the input; how far it is, until the last of them has come."""
        uploads = [_upload(file) for file in files or []]
        if len(uploads) > MAX_IMAGES:
            self._classifier.forget(uploads)
            yield fragments.too_many(len(uploads), MAX_IMAGES), gr.skip(), None
            return
        answers: list[Answer] = []
        yield fragments.progress(0, len(uploads)), gr.skip(), gr.skip()
        async for answer in self._classifier.classify_many(uploads):
            answers.append(answer)
            yield fragments.progress(len(answers), len(uploads)), gr.skip(), gr.skip()
        served = await anyio.to_thread.run_sync(self._watch.look, 0.0)
        yield batch_results(answers, served), fragments.model_status(served), None

    async def predict(self, image: Mapping[str, Any] | None) -> dict[str, float]:
        """The score of each label, for programs."""
        if image is None:
            raise gr.Error("no image was given", print_exception=False)
        result = (await self._classifier.classify(_upload(image))).result
        if isinstance(result, Failure):
            raise gr.Error(str(result.error), print_exception=False)
        return dict(result.scores)


def _upload(file: Mapping[str, Any]) -> Upload:
    """From gradio's `FileData`."""
    return Upload(str(file["path"]), file.get("orig_name") or "image")


def _build_page(events: _Events, *, policy: bool, recorded: bool) -> gr.Blocks:
    page = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=DELETE_CACHE)
    with page:
        gr.HTML(fragments.header(TITLE))
        status = gr.HTML("", elem_id="df-status")
        with gr.Tabs():
            with gr.Tab("One image"), gr.Row(equal_height=False):
                with gr.Column():  # a row of columns becomes one column on a phone
                    image = gr.Image(
                        type="filepath",
                        label="Image: upload, paste or take a photo",
                        sources=["upload", "webcam", "clipboard"],
                        height=320,
                        buttons=[],
                        placeholder="Drop an image here,\nor click to choose one",
                        webcam_options=gr.WebcamOptions(mirror=False),
                        elem_id="df-image",
                    )
                with gr.Column():
                    verdict = gr.HTML(fragments.empty(), elem_id="df-verdict")
            with gr.Tab("Several images"):
                label = f"Images: up to {MAX_IMAGES} at once"
                images = gr.File(
                    file_count="multiple", label=label, file_types=["image"], height=160, elem_id="df-images"
                )
                verdicts = gr.HTML(fragments.empty_batch(), elem_id="df-verdicts")
        gr.HTML(fragments.note(policy, recorded), elem_id="df-note")

        private: dict[str, Any] = {"api_visibility": "private"}  # of the page, not for programs
        for trigger in (page.load, gr.Timer(_LOOK_SECONDS).tick):
            trigger(events.look, status, status, show_progress="hidden", **private)
        # Not preprocessed: gradio would open the image, and convert some, where the file's own bytes are wanted.
        image.upload(
            events.one,
            image,
            [verdict, status, image],
            preprocess=False,
            concurrency_limit=_SINGLES,
            concurrency_id="single",
            show_progress_on=[verdict],
            trigger_mode="always_last",
            **private,
        )
        images.upload(
            events.several,
            images,
            [verdicts, status, images],
            preprocess=False,
            concurrency_limit=_BATCHES,
            show_progress="hidden",
            trigger_mode="always_last",
            **private,
        )
        gr.Button(visible=False).click(
            events.predict,
            gr.Image(type="filepath", label="image", visible=False),
            gr.JSON(label="scores", visible=False),
            preprocess=False,
            concurrency_limit=_SINGLES,
            concurrency_id="single",
            api_name="predict",
            api_description="The score of each label for one image.",
        )
    page.queue(max_size=_MAX_QUEUE, default_concurrency_limit=_SINGLES, api_open=False)
    return page
