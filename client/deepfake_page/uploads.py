"""Uploaded images, in memory from their arrival to their answer."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

#: Before it, in what gradio takes for the path of a file.
_PREFIX = "upload/"


@dataclass(frozen=True, slots=True)
class Upload:
    """One image as it was sent.

    Attributes:
        name: its file name, as the sender gave it.
        data: its bytes, untouched.
    """

    name: str
    data: bytes


class UploadsFullError(Exception):
    """There is no room for more bytes now."""


class UploadStore:
    """Hands out a ticket for each upload, and the upload once for its ticket. Safe to share between threads.

    A ticket cannot be guessed, so nobody gets at the image of somebody else.

    Args:
        max_bytes: of all uploads together, those that are still arriving included.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes held now, or reserved for uploads that are arriving."""
        return self._held_bytes

    def reserve(self, count: int) -> None:
        """Make room for `count` bytes; `release` gives it back.

        Raises:
            UploadsFullError: there is none.
        """
        with self._lock:
            if self._held_bytes + count > self._max_bytes:
                raise UploadsFullError
            self._held_bytes += count

    def release(self, count: int) -> None:
        """Give back room that was reserved."""
        with self._lock:
            self._held_bytes -= count

    def put(self, upload: Upload) -> str:
        """Keep an upload; its ticket.

        Raises:
            UploadsFullError: there is no room for it.
        """
        self.reserve(len(upload.data))
        ticket = _PREFIX + secrets.token_urlsafe(24)
        with self._lock:
            self._uploads[ticket] = upload
        return ticket

    def look(self, ticket: str) -> Upload | None:
        """The upload of a ticket, which stays; None when it is gone or was never there."""
        with self._lock:
            return self._uploads.get(ticket)

    def take(self, ticket: str) -> Upload | None:
        """The upload of a ticket, which is forgotten; None when it is gone or was never there."""
        with self._lock:
            upload = self._uploads.pop(ticket, None)
            if upload is not None:
                self._held_bytes -= len(upload.data)
            return upload
