"""Which addresses the page has, and what its answers forbid the browser."""

from __future__ import annotations

import asyncio
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What the page and gradio's clients need. Everything else that gradio has (a proxy to other hosts, profiling, a code
# editor, recordings, histories of runs, its MCP server) is not there.
_GET = re.compile(
    r"/|/config/?|/info/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static|svelte)/.*"
    r"|/gradio_api/(info/?|openapi\.json|app_id/?|startup-events|queue/(data|status)|upload_progress|file=.*"
    r"|heartbeat/[^/]*|call/[^/]*/[^/]*)"
)
_POST = re.compile(r"/gradio_api/(upload|queue/join|cancel|reset/?|call/[^/]*/?)")

# gradio's page is made of inline scripts and styles, and of code that it builds (`Function`) to run our `js`; but
# nothing may come from, or go to, another host.
_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


_MAX_JSON_BYTES = 1 << 20
_UPLOAD = "/gradio_api/upload"
_HEARTBEAT = "/gradio_api/heartbeat/"


class Gate:
    """ASGI middleware: a list of what is open, headers on every answer, and an end for streams that have none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._heartbeats_end = asyncio.Event()
        self._all_ends = asyncio.Event()

    def end_heartbeats(self) -> None:
        """Let go of the connection that each open page holds for good."""
        self._heartbeats_end.set()

    def end_all(self) -> None:
        """Let go of every connection, also of those that wait for an answer."""
        self._all_ends.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            end = self._heartbeats_end if scope["path"].startswith(_HEARTBEAT) else self._all_ends
            refusal = _refusal(scope)
            await (refusal or self._app)(scope, _until(end, receive), _with_headers(send))


def _refusal(scope: Scope) -> ASGIApp | None:
    method, path = scope["method"], scope["path"]
    if method in ("GET", "HEAD") and _GET.fullmatch(path):
        return None
    if method != "POST" or not _POST.fullmatch(path):
        return PlainTextResponse("Not Found", status_code=404)
    headers = Headers(scope=scope)
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        # Another website, open in the browser of somebody who reaches this port.
        return PlainTextResponse("Forbidden", status_code=403)
    # Uploads have a limit of their own; what else is sent is a few lines.
    length = headers.get("content-length", "")
    if path != _UPLOAD and not (length.isdecimal() and int(length) <= _MAX_JSON_BYTES):
        return PlainTextResponse("Content Too Large", status_code=413)
    return None


def _until(end: asyncio.Event, receive: Receive) -> Receive:
    """`receive`, which tells a disconnection once `end` is set: then streams end by themselves and in order."""

    async def receive_until() -> Message:
        message = asyncio.ensure_future(receive())
        ended = asyncio.ensure_future(end.wait())
        try:
            await asyncio.wait([message, ended], return_when=asyncio.FIRST_COMPLETED)
            return message.result() if message.done() else {"type": "http.disconnect"}
        finally:
            message.cancel()
            ended.cancel()

    return receive_until


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
        await send(message)

    return send_with_headers
