"""`deepfake page`."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from deepfake_client import DeepfakeError
from deepfake_client.preprocessing import Decoding

from .console import fail, say, waiting
from .options import Server, decoding_option, file_option, server_options

if TYPE_CHECKING:
    from deepfake_page.guard import Guard

_DRAIN_SECONDS = 5  # for answers on their way


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
    from deepfake_page.uploads import memory_folder

    try:
        # A person waits: after three retries the page says what is wrong in place of trying on.
        client = server.client(max_retries=3, decoding=decoding, policy=policy, verdict_log=verdict_log)
    except DeepfakeError as error:
        fail(str(error))
    with client, _listener(host, port) as listener, memory_folder() as folder:
        with waiting("Building the page"):  # gradio takes seconds, so it comes after what can go wrong
            from deepfake_page.app import build_app

            recorded = verdict_log is not None
            app, end_streams = build_app(client, folder, policy=policy is not None, recorded=recorded)
        address, port = listener.getsockname()[:2]
        if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            say(f"Listening on {host}: whoever reaches this port can classify, there is no authentication.")
        if not client.ready():
            say(f"{server.url}: no server answers there yet, or it is not ready; the page waits for it")
        say(f"Ready: http://{f'[{address}]' if ':' in address else address}:{port}  (Ctrl-C stops)")
        _run_until_stopped(app, listener, end_streams)
    say("Stopped")


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, dualstack_ipv6=family == socket.AF_INET6)
    except (OSError, UnicodeError) as error:
        reason = str(getattr(error, "strerror", None) or "no name of a machine").partition(" (while")[0]
        fail(
            f"port {port} on {host} cannot be bound ({reason}); stop what listens there, or choose another with "
            "--port (0 picks a free one) or --host"
        )


def _run_until_stopped(app: Guard, listener: socket.socket, end_streams: Callable[[], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; answers on their way get a few seconds, unless a second one follows."""
    import uvicorn

    class OrderlyServer(uvicorn.Server):
        def handle_exit(self, *_: Any) -> None:
            """In place of uvicorn's, which raises the signal again after an orderly end."""
            self.force_exit = self.should_exit
            self.should_exit = True
            logging.getLogger("uvicorn.error").disabled = True  # it shows the frames of what is cut off
            end_streams()

    server = OrderlyServer(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
    )
    signal.signal(signal.SIGHUP, server.handle_exit)
    server.run(sockets=[listener])
