"""Which weights answer now."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import PurePath

from deepfake_client import DeepfakeClient, DeepfakeError, Provenance

_log = logging.getLogger("deepfake_page")
# Nobody waits for this longer than for an image.
_TIMEOUT_SECONDS = 3.0
# Each open page asks every few seconds; the server is asked for all of them together.
_FRESH_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The server as it was when it was asked last.

    Attributes:
        provenance: of its weights, or what it told of them before it went away; None where it has told nothing.
        away: why it cannot be asked; None where it answers.
    """

    provenance: Provenance | None
    away: str | None

    @property
    def stand_in(self) -> bool:
        """Whether its weights are known to be random."""
        return self.provenance is not None and self.provenance.stand_in

    @property
    def weights(self) -> str:
        """In a word, for a table: "checkpoint", "stand-in" or "unknown"."""
        return "unknown" if self.provenance is None else self.provenance.weights

    @property
    def model_name(self) -> str:
        """The Hub id, or the last part of a folder's path: where that lies is nobody's business on the page."""
        if self.provenance is None:
            return "unknown"
        name = self.provenance.model_id
        return PurePath(name).name if name.startswith(("/", ".", "~")) else name


class ServedModelWatch:
    """Asks the server which weights it has, and logs when it goes away and when it comes back."""

    def __init__(self, client: DeepfakeClient) -> None:
        self._client = client
        self._away: str | None = None
        self._lock = threading.Lock()
        self._last: tuple[float, ServedModel] | None = None

    def look(self, max_age: float = _FRESH_SECONDS) -> ServedModel:
        """What it had at most `max_age` seconds ago; never raises for a server that is away."""
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] >= max_age:
                self._last = time.monotonic(), self._ask()
            return self._last[1]

    def _ask(self) -> ServedModel:
        try:
            served = ServedModel(self._client.provenance(timeout=_TIMEOUT_SECONDS, max_retries=0), None)
        except DeepfakeError as error:
            # What is known of its weights holds for the verdicts that it gave before.
            served = ServedModel(self._last[1].provenance if self._last else None, error.reason)
        if served.away != self._away:
            _log.warning("the server %s", "answers again" if served.away is None else f"is away: {served.away}")
            self._away = served.away
        return served
