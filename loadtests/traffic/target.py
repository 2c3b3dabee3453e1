"""The server under test, as the users of one protocol in one process see it."""

from __future__ import annotations

import itertools
import logging
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc.experimental.gevent
from deepfake_client import DeadlineExceededError, DeepfakeClient, DeepfakeError, NotReadyError

from .answers import alike, ask, cause_of, known_answers, wrong
from .options import client_options, credentials
from .pool import Item, Stream

_log = logging.getLogger("loadtests")

_LATE_SECONDS = 0.1
_PAUSE_SECONDS = 1.0


class RequestFailedError(Exception):
    """What Locust's table of failures shows: the cause alone."""

    def __repr__(self) -> str:
        return str(self)


class Target:
    """A client for each URL, what it sends and what it knows of the answers; shared by all users of a class here.

    Raises:
        ValueError: the file of known answers cannot be used, or the replicas have different labels.
        DeepfakeError: the server does not answer.
    """

    def __init__(self, urls: Sequence[str], options: Namespace) -> None:
        grpc.experimental.gevent.init_gevent()  # in each process, before its first channel and after any fork
        arguments = client_options(options.payload, options.deadline_seconds, credentials(options))
        for url in urls if options.wait_ready_seconds else ():
            _wait_until_ready(url, arguments, options.wait_ready_seconds)
        self._clients = [DeepfakeClient(url, **arguments) for url in urls]
        self._turn = itertools.cycle(self._clients)
        self._tolerance = options.score_tolerance
        self._latest = 0.0
        self._told: set[str] = set()
        try:
            labels = {frozenset(client.model_info().labels) for client in self._clients}
            if len(labels) > 1:
                raise ValueError("the replicas serve models with different labels")
            file = Path(options.known_answers) if options.known_answers else None
            known = known_answers(self._clients[0], file, options.known_rate, options.payload)
        except (DeepfakeError, ValueError):
            self.close()
            raise
        if known and alike(known, self._tolerance):
            _log.warning("all known images have the same scores: answers that are mixed up will not be seen")
        self._labels = labels.pop()
        self.stream = Stream(options.payload, options.image_side, known, options.known_rate, options.repeat_rate)

    def send(self, item: Item) -> RequestFailedError | None:
        """Sends an image and judges the answer; the log has one example of each cause of failures."""
        try:
            verdict = ask(next(self._turn), item.payload)
        except DeepfakeError as error:
            cause, example = cause_of(error), str(error)
        else:
            found = wrong(verdict.scores, item.scores, self._labels, self._tolerance)
            if found is None:
                return None
            expected = dict(item.scores) if item.scores else f"scores of {sorted(self._labels)}"
            cause, example = found, f"{dict(verdict.scores)} in place of {expected}"
        if cause not in self._told:
            self._told.add(cause)
            _log.warning("%s, for the first time: %s", cause, example)
        return RequestFailedError(cause)

    def left(self, due: float) -> None:
        """Notes how late, by time.perf_counter(), a request leaves that was due then."""
        self._latest = max(self._latest, time.perf_counter() - due)

    def close(self) -> None:
        if self._latest > _LATE_SECONDS:
            _log.warning(
                "requests left up to %.0f ms after they were due, which is in their latency: this process cannot keep up "
                "with --rate; spread the users over more with --processes",
                self._latest * 1000,
            )
        for client in self._clients:
            client.close()


def _wait_until_ready(url: str, arguments: dict[str, Any], seconds: float) -> None:
    """Returns when the server answers.

    Raises:
        NotReadyError: it still does not after so many seconds.
        DeepfakeError: at once, where waiting does not help: a certificate that is not trusted, for example.
    """
    _log.info("waiting for %s, %g s at most", url, seconds)
    deadline = time.monotonic() + seconds
    while True:
        # A client for each look: in one channel gRPC asks ever less often for a name that does not resolve.
        with DeepfakeClient(url, **arguments) as client:
            try:
                client.model_info()
                return
            except DeepfakeError as error:
                if not (error.retryable or isinstance(error, DeadlineExceededError)):
                    raise
                if time.monotonic() >= deadline:
                    raise NotReadyError(f"not ready after {seconds:g} s: {error}") from error
        time.sleep(_PAUSE_SECONDS)
