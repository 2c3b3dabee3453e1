"""What the `on_request` hook is told, for the user's own metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ._call_options import Call
from ._errors import DeepfakeError

_log = logging.getLogger("deepfake_client")


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """How one call that went to the server ended.

    Attributes:
        method: "infer", "model_metadata", …
        model: the model asked.
        endpoint: URL of the replica that was asked last; None when none was.
        request_id: the id under which the server saw it.
        images: images in the request; 0 for a question about the model.
        attempts: requests sent, 1 when the first was answered.
        latency_seconds: from the first attempt to the end, pauses between attempts included, decoding of the image
            not.
        bytes_sent, bytes_received: tensor data of all attempts.
        error: None for success, else what is raised.
    """

    method: str
    model: str
    endpoint: str | None
    request_id: str
    images: int
    attempts: int
    latency_seconds: float
    bytes_sent: int
    bytes_received: int
    error: DeepfakeError | None

    @classmethod
    def of(
        cls, call: Call, method: str, model: str, images: int, latency_seconds: float, error: DeepfakeError | None
    ) -> RequestOutcome:
        """The outcome of `call` after its last attempt."""
        return cls(
            method=method,
            model=model,
            endpoint=call.endpoint,
            request_id=call.request_id,
            images=images,
            attempts=call.attempts,
            latency_seconds=latency_seconds,
            bytes_sent=call.bytes_sent,
            bytes_received=call.bytes_received,
            error=error,
        )


#: Called in the thread or task of the call; must return quickly. What it raises is logged and dropped.
OnRequest: TypeAlias = Callable[[RequestOutcome], object]


def report(hook: OnRequest | None, outcome: RequestOutcome) -> None:
    """Logs `outcome` and hands it to `hook`."""
    if _log.isEnabledFor(logging.DEBUG):
        ending = f"failed: {outcome.error}" if outcome.error else "answered"
        _log.debug(
            "%s %s to %s %s after %d attempt(s), %.1f ms",
            outcome.method,
            outcome.request_id,
            outcome.endpoint,
            ending,
            outcome.attempts,
            outcome.latency_seconds * 1000,
        )
    if hook is not None:
        try:
            hook(outcome)
        except Exception as error:
            # The type alone: the message of a foreign error may hold anything.
            _log.error("the on_request hook raised %s", type(error).__name__)
