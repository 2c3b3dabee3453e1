"""Why a request failed, in a few fixed words: a table of failures with a row for each message hides what happened."""

from __future__ import annotations

from deepfake_client import (
    ConnectionFailedError,
    DeadlineExceededError,
    DeepfakeError,
    NotReadyError,
    OverloadedError,
    ProtocolError,
    Verdict,
)

from .known_answers import KnownAnswer

REJECTED_FULL = "rejected: the queue is full, or too many requests"
REJECTED_WAITED = "rejected: waited in the queue for too long"
REJECTED_NOT_READY = "rejected: the server is not ready"
DEADLINE = "deadline: no answer in time"
CONNECTION = "connection: refused, reset or closed"
WRONG_INVALID = "wrong answer: no valid scores"
WRONG_SCORES = "wrong answer: not the known scores"
OTHER = "other"


def cause_of(error: DeepfakeError) -> str:
    """The cause of an error of the client's; for a kind that no load brings about, "other" with its name."""
    if isinstance(error, OverloadedError):
        return REJECTED_WAITED if "timeout expired" in error.reason else REJECTED_FULL
    if isinstance(error, NotReadyError):
        return REJECTED_NOT_READY
    if isinstance(error, DeadlineExceededError):
        return DEADLINE
    if isinstance(error, ConnectionFailedError):
        return CONNECTION
    if isinstance(error, ProtocolError):
        return WRONG_INVALID
    return f"{OTHER}: {type(error).__name__}"


def wrong(verdict: Verdict, known: KnownAnswer | None, labels: frozenset[str], tolerance: float) -> str | None:
    """The cause when a verdict is not right, else None.

    That the scores are probabilities and the answer belongs to the request, the client checks for every answer; which
    labels they are for, is checked here, and the scores themselves where they are known.
    """
    if frozenset(verdict.scores) != labels:
        return WRONG_INVALID
    return WRONG_SCORES if known is not None and known.contradicts(verdict, tolerance) else None
