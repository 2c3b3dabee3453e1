"""Options of the commands that ask a server."""

from __future__ import annotations

import click

url_option = click.option(
    "--url", default="grpc://127.0.0.1:8001", show_default=True, help="grpc, grpcs, http or https."
)
concurrency_option = click.option(
    "--concurrency", type=click.IntRange(1, 256), default=16, show_default=True, help="Requests in flight."
)
timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds that one image may take, retries included.",
)


def not_ready(url: str) -> str:
    """What to say of a server that does not answer, or not yet."""
    return f"{url}: no server answers there, or it is not ready; start one with `deepfake serve`"
