"""What stands where on the page, and what calls which event."""

from __future__ import annotations

from typing import Any

import gradio as gr

from . import batch_markup, markup
from .events import Events
from .inputs import ImageInput, ImagesInput
from .limits import BATCHES, MAX_IMAGES, MAX_QUEUE, SINGLE_WORKERS

#: How often an open page looks whether the server is still there and has the same weights.
_LOOK_SECONDS = 5


def build_page(events: Events, *, policy: bool, recorded: bool) -> gr.Blocks:
    """The page as gradio's blocks, with `/predict` as the one address for programs.

    Args:
        events: what is called.
        policy: whether the verdicts come with a policy's decision.
        recorded: whether there is a verdict log.
    """
    page = gr.Blocks(title=markup.TITLE, analytics_enabled=False)
    with page:
        gr.HTML(markup.HEADER)
        status = gr.HTML("", elem_id="df-status")
        with gr.Tabs():
            with gr.Tab("One image"), gr.Row(equal_height=False):
                with gr.Column():  # a row of columns becomes one column on a phone
                    image = ImageInput(
                        type="filepath",
                        image_mode=None,
                        label="Image: upload, paste or take a photo",
                        sources=["upload", "webcam", "clipboard"],
                        height=320,
                        buttons=[],
                        placeholder="Drop an image here,\nor click to choose one",
                        webcam_options=gr.WebcamOptions(mirror=False),
                        elem_id="df-image",
                    )
                with gr.Column():
                    verdict = gr.HTML(markup.EMPTY, elem_id="df-verdict")
            with gr.Tab("Several images"):
                label = f"Images: up to {MAX_IMAGES} at once"
                images = ImagesInput(
                    file_count="multiple", label=label, file_types=["image"], height=160, elem_id="df-images"
                )
                verdicts = gr.HTML(batch_markup.EMPTY, elem_id="df-verdicts")
        gr.HTML(markup.note(policy=policy, recorded=recorded), elem_id="df-note")

        shown = gr.State("")
        private: dict[str, Any] = {"api_visibility": "private"}  # of the page, not for programs
        for trigger in (page.load, gr.Timer(_LOOK_SECONDS).tick):
            trigger(events.look, shown, [status, shown], show_progress="hidden", **private)
        image.upload(
            events.one,
            image,
            [verdict, status, shown, image],
            concurrency_limit=SINGLE_WORKERS,
            concurrency_id="single",
            show_progress_on=[verdict],
            trigger_mode="always_last",
            **private,
        )
        images.upload(
            events.several,
            images,
            [verdicts, status, shown, images],
            concurrency_limit=BATCHES,
            show_progress="hidden",
            trigger_mode="always_last",
            **private,
        )
        gr.Button(visible=False).click(
            events.predict,
            ImageInput(type="filepath", label="image", visible=False),
            gr.JSON(label="scores", visible=False),
            concurrency_limit=SINGLE_WORKERS,
            concurrency_id="single",
            api_name="predict",
            api_description="The score of each label for one image.",
        )
    page.queue(max_size=MAX_QUEUE, default_concurrency_limit=SINGLE_WORKERS)
    return page
