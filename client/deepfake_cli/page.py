"""`deepfake page`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click
from deepfake_client import DeepfakeError, ImageLimits
from deepfake_client.preprocessing import Decoding

from .console import fail, say, waiting
from .options import Server, decoding_option, file_option, server_options


@click.command()
@server_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0 picks a free one.")
@decoding_option
@file_option("--policy", "Written by `deepfake calibrate`; the page then says `unsure` where it does not decide.")
@file_option(
    "--verdict-log",
    "Append a JSON line for each verdict: time, SHA-256 of the image, scores, model; no image and no file name.",
)
def command(
    server: Server, host: str, port: int, decoding: Decoding, policy: Path | None, verdict_log: Path | None
) -> None:
    """Serve the web page in front of a running Triton, in the foreground, until Ctrl-C or SIGTERM."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="deepfake: %(message)s")
    from deepfake_page.server import PortError, bind, is_loopback, run_until_stopped, url_of
    from deepfake_page.uploads import memory_folder

    limits = ImageLimits()
    try:
        # A person waits: after three retries the page says what is wrong in place of trying on.
        client = server.client(max_retries=3, limits=limits, decoding=decoding, policy=policy, verdict_log=verdict_log)
        listener = bind(host, port)
    except (DeepfakeError, PortError) as error:
        fail(str(error))
    with client, listener, memory_folder() as folder:
        with waiting("Building the page"):  # gradio takes seconds, so it comes after what can go wrong
            from deepfake_page.app import build_app

            recorded = verdict_log is not None
            app, end_streams = build_app(client, folder, limits, policy=policy is not None, recorded=recorded)
        if not is_loopback(listener):
            say(f"Listening on {host}: whoever reaches this port can classify, there is no authentication.")
        if not client.ready():
            say(f"{server.url}: no server answers there yet, or it is not ready; the page waits for it")
        say(f"Ready: {url_of(listener)}  (Ctrl-C stops)")
        run_until_stopped(app, listener, end_streams)
    say("Stopped")
