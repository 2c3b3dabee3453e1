"""How a message is carried: the steps of a call, and its attempts over the replicas.

A call is a generator of steps, which do no input or output themselves. The sync and the async client carry the steps
out and send back their results; they differ in nothing else, so they cannot drift apart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from ._calls import Call, OnRequest, RequestOutcome
from ._credentials import Headers, Identity, redact
from ._errors import (
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    DeepfakeError,
)
from ._replicas import ReplicaSet
from ._retry import RetryState
from ._transports.base import AnyTransport, InferResponse

R = TypeVar("R")

_log = logging.getLogger("deepfake_client")


@dataclass(frozen=True, slots=True)
class Send(Generic[R]):
    """Call a transport's method, bound to its message, with the seconds it may take; results in its answer."""

    call: Callable[[float], R | Awaitable[R]] = field(repr=False)  # holds the headers, and so the credentials
    timeout: float


@dataclass(frozen=True, slots=True)
class Work(Generic[R]):
    """Run something that keeps a core busy or a disk waiting; results in what it returns."""

    run: Callable[[], R]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait; results in None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Acquire:
    """Take the lock that lets one call at a time ask for what all calls share; results in whether that was in time.

    The core itself releases it.
    """

    timeout: float


Step: TypeAlias = Send[Any] | Work[Any] | Pause | Acquire
Steps: TypeAlias = Generator[Step, Any, R]


def send(call: Callable[[float], R | Awaitable[R]], timeout: float) -> Steps[R]:
    """The answer to one message."""
    answer: R = yield Send(call, timeout)
    return answer


def work(run: Callable[[], R]) -> Steps[R]:
    """What `run` returns."""
    result: R = yield Work(run)
    return result


#: Puts a question to a transport; called for each attempt, with the headers and the seconds that it has.
Ask: TypeAlias = Callable[[AnyTransport, Headers, float], R | Awaitable[R]]


@dataclass(slots=True)
class Exchange:
    """The way of all messages of a client: which replica one goes to, and when it is sent again."""

    replicas: ReplicaSet[AnyTransport]
    identity: Identity
    model: str
    on_request: OnRequest | None
    closed: bool = False

    def run(
        self,
        call: Call,
        method: str,
        ask: Ask[R],
        *,
        images: int = 0,
        size: int = 0,
        also_retry: tuple[type[DeepfakeError], ...] = (),
    ) -> Steps[R]:
        """Asks until there is an answer, a reason to stop, or no time left; results in the answer.

        Args:
            method: what logs and outcomes call the question.
            images, size: how many images and payload bytes it has, for the outcome.
            also_retry: kinds of errors that are retried for this call though they usually are not.
        """
        started = time.monotonic()
        try:
            answer = yield from self._attempts(call, method, ask, size, RetryState(call.max_retries, also_retry))
        except DeepfakeError as error:
            self._report(call, method, images, started, error)
            raise
        if isinstance(answer, InferResponse):
            call.bytes_received += sum(len(tensor.data) for tensor in answer.outputs.values())
        self._report(call, method, images, started, None)
        return answer

    def _report(self, call: Call, method: str, images: int, started: float, error: DeepfakeError | None) -> None:
        """Logs how `call` ended, and tells the hook."""
        seconds = time.monotonic() - started
        if _log.isEnabledFor(logging.DEBUG):
            end = "answered" if error is None else f"failed: {error}"
            where = f"{method} {call.request_id} to {call.endpoint}"
            _log.debug("%s %s after %d attempt(s), %.1f ms", where, end, call.attempts, seconds * 1000)
        if self.on_request is None:
            return
        outcome = RequestOutcome(
            method,
            self.model,
            call.endpoint,
            call.request_id,
            images,
            call.attempts,
            seconds,
            call.bytes_sent,
            call.bytes_received,
            error,
        )
        try:
            self.on_request(outcome)
        except Exception as raised:
            # The type alone: the message of a foreign error may hold anything.
            _log.error("the on_request hook raised %s", type(raised).__name__)

    def _attempts(self, call: Call, method: str, ask: Ask[R], size: int, retry: RetryState) -> Steps[R]:
        while True:
            if self.closed:
                raise ClientClosedError("the client was closed")
            remaining = call.remaining()
            if remaining <= 0:
                late = DeadlineExceededError(f"no answer within {call.timeout:g} s")
                raise call.named(retry.cause_of(late))
            headers = self.identity.headers(call.headers)
            choice = self.replicas.choose()
            replica = choice.replica
            # A replica that hangs must not take the whole deadline while another one could answer.
            share = remaining / 2 if self.replicas.has_another(replica) else remaining
            call.attempts, call.endpoint = call.attempts + 1, replica.endpoint
            call.bytes_sent += size
            try:
                answer = yield from send(partial(ask, replica.transport, headers), share)
            except DeepfakeError as raised:
                error = raised
                if isinstance(raised, DeadlineExceededError) and share < remaining:
                    error = ConnectionFailedError(f"no answer within {share:.1f} s, and others are there to ask")
                error.reword(redact(error.reason, headers))
                self.replicas.report(choice, error)
                failover = self.replicas.can_replace(replica, error)
                pause = retry.pause_after(error, call.remaining(), failover=failover)
                if pause is None:
                    raise call.named(retry.cause_of(error)) from None
                what = f"{method} {call.request_id}: attempt {call.attempts} at {replica.endpoint}"
                _log.info("%s failed (%s), next in %.2f s", what, error.reason, pause)
                yield Pause(pause)
            except BaseException:
                self.replicas.abandon(choice)
                raise
            else:
                self.replicas.report(choice, None)
                return answer
