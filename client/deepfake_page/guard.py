"""What stands between the page's port and gradio: which requests pass, and what the answers forbid the browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .uploads import Uploads

# gradio's page is made of inline scripts and styles, and of code that it builds (`Function`) to run our `js`; but
# nothing may come from, or go to, another host.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_UPLOAD = "/gradio_api/upload"
_FILE = re.compile(r"/gradio_api/file[=/](.*)", re.DOTALL)
# It would write what a visitor sees, thumbnails included, into a file.
_CLOSED = "/gradio_api/deep_link"
# What is not an upload is a few lines.
_MAX_JSON_BYTES = 1 << 20
_NO_UPLOAD = "not an uploaded file: nothing is read from this machine or fetched from other hosts"
_FULL = "too many images are waiting; try again in a minute"


class Guard:
    """ASGI middleware: headers on every answer, no posts from other sites, an end for the size of what is sent, and no
    file that was not uploaded.

    gradio itself would fetch an address, or read a path, that stands where an upload belongs.
    """

    def __init__(self, app: ASGIApp, uploads: Uploads) -> None:
        self._app = app
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        file = _FILE.fullmatch(scope["path"])
        send = _with_headers(send, {**_HEADERS, "Cache-Control": "no-store"} if file else _HEADERS)
        if scope["method"] != "POST":
            closed = scope["path"] == _CLOSED or (file and not self._uploads.holds(file[1]))
            app = PlainTextResponse("Not Found", status_code=404) if closed else self._app
            await app(scope, receive, send)
        elif Headers(scope=scope).get("sec-fetch-site") in ("cross-site", "same-site"):
            # Another website, open in the browser of somebody who reaches this port.
            await PlainTextResponse("Forbidden", status_code=403)(scope, receive, send)
        elif scope["path"] == _UPLOAD:
            await self._upload(scope, receive, send)
        else:
            await self._call(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes what there is room for, and takes note of the paths that gradio answers with."""
        length = _length(scope)
        if length is None:
            await PlainTextResponse("Length Required", status_code=411)(scope, receive, send)
            return
        if not self._uploads.has_room(length):
            while length <= self._uploads.max_bytes and (await receive()).get("more_body"):
                pass  # a sender that is interrupted would not hear the answer
            await PlainTextResponse(_FULL, status_code=503)(scope, receive, send)
            return
        answer = b""

        async def send_noted(message: Message) -> None:
            nonlocal answer
            answer += message.get("body", b"")
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._uploads.arrived(_paths(answer))
            await send(message)

        # The paths must come as they are, not compressed.
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        with self._uploads.arriving(length), suppress(ClientDisconnect):
            await self._app({**scope, "headers": plain}, receive, send_noted)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes JSON that names no other files than uploads."""
        length = _length(scope)
        if length is None or length > _MAX_JSON_BYTES:
            await PlainTextResponse("Content Too Large", status_code=413)(scope, receive, send)
            return
        app = self._app
        try:
            body = await Request(scope, receive).body()
            if not all(map(self._uploads.holds, _file_paths(json.loads(body)))):
                app = PlainTextResponse(_NO_UPLOAD, status_code=403)
        except (ValueError, RecursionError):
            app = PlainTextResponse("no JSON", status_code=400)
        except ClientDisconnect:
            return
        messages = iter([{"type": "http.request", "body": body}])

        async def receive_again() -> Message:
            return next(messages, None) or await receive()

        await app(scope, receive_again, send)


def _length(scope: Scope) -> int | None:
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isdecimal() else None


def _file_paths(body: object) -> Iterator[object]:
    """What a request gives as the path of a file, however deep."""
    if isinstance(body, dict):
        if "path" in body:
            yield body["path"]
        body = list(body.values())
    if isinstance(body, list):
        for each in body:
            yield from _file_paths(each)


def _paths(answer: bytes) -> list[str]:
    """Paths in gradio's answer to an upload; none where it is an error."""
    try:
        paths = json.loads(answer)
    except ValueError:
        return []
    return paths if isinstance(paths, list) else []


def _with_headers(send: Send, added: Mapping[str, str]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(added)
        await send(message)

    return send_with_headers
