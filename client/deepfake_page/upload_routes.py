"""The addresses that gradio's pages and clients send files to, kept in memory in place of gradio's own, which write
each file to a disk."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncGenerator

from fastapi import FastAPI
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from .limits import KEEP_SECONDS, MAX_IMAGES, PageLimits
from .uploads import Upload, UploadsFullError, UploadStore


class _InMemoryParser(MultiPartParser):
    spool_max_size = 0  # for tempfile.SpooledTemporaryFile: never over to a disk


class _RefusedError(Exception):
    """Its first argument is the answer's status, its second the reason."""


def add_upload_routes(app: FastAPI, store: UploadStore, limits: PageLimits) -> None:
    """Add them to `app`; to be called before gradio is mounted, whose routes of the same names come second."""

    @app.post("/gradio_api/upload")
    async def upload(request: Request) -> Response:
        try:
            tickets = _keep(await _received(request, store, limits), store)
        except _RefusedError as refused:
            status, reason = refused.args
            return PlainTextResponse(reason, status_code=status)
        except UploadsFullError:
            return PlainTextResponse("too many images are waiting; try again in a minute", status_code=503)
        except MultiPartException as error:
            return PlainTextResponse(f"no upload of files: {error.message}", status_code=400)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        for ticket in tickets:
            # Whoever uploads and goes away leaves nothing behind.
            asyncio.get_running_loop().call_later(KEEP_SECONDS, store.take, ticket)
        return JSONResponse(tickets)

    @app.get("/gradio_api/upload_progress")
    async def upload_progress() -> Response:
        return Response(status_code=204)  # ends the browser's attempts to listen

    @app.get("/gradio_api/file={ticket:path}")
    async def preview(ticket: str) -> Response:
        """The picture while it waits; its sender alone knows the address."""
        found = store.look(ticket)
        kind = mimetypes.guess_type(found.name)[0] if found else None
        if found is None or kind is None or not kind.startswith("image/") or kind == "image/svg+xml":
            return Response(status_code=404)
        return Response(found.data, media_type=kind, headers={"Cache-Control": "no-store"})


def _keep(uploads: list[Upload], store: UploadStore) -> list[str]:
    """Tickets of all of them, or of none."""
    tickets: list[str] = []
    try:
        for upload in uploads:
            tickets.append(store.put(upload))
    except UploadsFullError:
        for ticket in tickets:
            store.take(ticket)
        raise
    return tickets


async def _received(request: Request, store: UploadStore, limits: PageLimits) -> list[Upload]:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise _RefusedError(400, "no upload of files: multipart/form-data expected")
    reserved = 0

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal reserved
        async for chunk in request.stream():
            store.reserve(len(chunk))
            reserved += len(chunk)
            yield chunk

    try:
        form = await _InMemoryParser(request.headers, chunks()).parse()
        uploads: list[Upload] = []
        for _, file in form.multi_items():
            if isinstance(file, str):
                continue
            name = file.filename or "image"
            if (file.size or 0) > limits.image.max_bytes:
                raise _RefusedError(413, f"{name}: larger than {limits.max_megabytes} MB, the most that is taken")
            uploads.append(Upload(name, await file.read()))
            await file.close()
        if len(uploads) > MAX_IMAGES:
            raise _RefusedError(413, f"{len(uploads)} images at once are too many: {MAX_IMAGES} at most")
        return uploads
    finally:
        store.release(reserved)
