"""One call: its options and deadline, the steps that it is made of, and its attempts over the replicas.

A call is a generator of steps, which do no input or output themselves. The sync and the async client carry the steps
out and send back their results; they differ in nothing else, so they cannot drift apart.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal, TypeAlias, TypedDict, TypeVar

from ._credentials import Headers, Identity, checked_headers, redact
from ._errors import (
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    DeepfakeError,
    InvalidArgumentError,
)
from ._images import AsyncBinaryFile
from ._model_info import PlainData
from ._replicas import ReplicaSet
from ._retry import RetryState
from ._transports.base import AnyTransport, InferResponse, StaleConnectionError

R = TypeVar("R")

_log = logging.getLogger("deepfake_client")

DEFAULT_TIMEOUT_SECONDS = 30.0
DEFAULT_MAX_RETRIES = 8
_MAX_REQUEST_ID_CHARS = 128
_DAY_SECONDS = 86_400.0  # sockets and gRPC overflow far above it, each in its own way

#: Who is served first when the server is busy.
Priority: TypeAlias = Literal["interactive", "bulk"]
# The levels of the model repository's configurations; a server without levels ignores them.
_LEVELS = {"interactive": 1, "bulk": 2}


class CallOptions(TypedDict, total=False):
    """The keyword arguments that every call takes. All may be left out or None.

    Attributes:
        timeout: seconds that the call may take in all, in place of the client's.
        max_retries: attempts after the first, in place of the client's.
        request_id: sent to the server, which logs it; made up when not given.
        priority: "interactive", which is the server's default, or "bulk", served when nothing else waits.
        headers: sent with this call's requests, over the client's own of the same names.
        traceparent: W3C trace context, passed on.
    """

    timeout: float | None
    max_retries: int | None
    request_id: str | None
    priority: Priority | None
    headers: Mapping[str, str] | None
    traceparent: str | None


def checked_timeout(timeout: float) -> float:
    """`timeout` in seconds, where it is a positive number of some use: a call without a deadline is not made."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= _DAY_SECONDS:
        raise InvalidArgumentError(f"timeout must be a positive number of seconds, a day at most, not {timeout!r:.40}")
    return float(timeout)


def checked_count(name: str, value: int, least: int) -> int:
    """`value`, where it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidArgumentError(f"{name} must be an integer of at least {least}, not {value!r:.40}")
    return value


@dataclass(slots=True)
class Call:
    """One call of the user's: its deadline, its id, what its image is called, and how often it was sent."""

    timeout: float
    deadline: float
    max_retries: int
    request_id: str
    priority: int
    headers: Headers = field(repr=False)
    source: str | None = None
    attempts: int = 0
    endpoint: str | None = None
    bytes_sent: int = 0
    bytes_received: int = 0

    def remaining(self) -> float:
        """Seconds to the deadline; negative after it."""
        return self.deadline - time.monotonic()

    def part(self, suffix: str = "") -> Call:
        """Another exchange of the same call, with a count of its own."""
        id_ = self.request_id + suffix
        return Call(self.timeout, self.deadline, self.max_retries, id_, self.priority, self.headers, self.source)

    def named(self, error: DeepfakeError) -> DeepfakeError:
        """`error` with the image, request, endpoint and attempts it came from."""
        error.source = self.source if self.source is not None else error.source
        error.request_id = error.request_id or self.request_id
        error.endpoint = error.endpoint or self.endpoint
        error.attempts = error.attempts or self.attempts
        return error


@dataclass(frozen=True, slots=True)
class CallDefaults:
    """What a call takes that says nothing itself."""

    timeout: float
    max_retries: int

    def begin(
        self,
        *,
        timeout: float | None = None,
        max_retries: int | None = None,
        request_id: str | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> Call:
        """A call that begins now, with the `CallOptions` given."""
        seconds = self.timeout if timeout is None else checked_timeout(timeout)
        return Call(
            timeout=seconds,
            deadline=time.monotonic() + seconds,
            max_retries=self.max_retries if max_retries is None else checked_count("max_retries", max_retries, 0),
            request_id=secrets.token_hex(8) if request_id is None else _checked_request_id(request_id),
            priority=0 if priority is None else _level_of(priority),
            headers=checked_headers(headers, traceparent) if headers or traceparent else (),
        )


def _checked_request_id(request_id: str) -> str:
    if (
        not isinstance(request_id, str)
        or not 0 < len(request_id) <= _MAX_REQUEST_ID_CHARS
        or not (request_id.isascii() and request_id.isprintable())
    ):
        raise InvalidArgumentError(f"request_id must be 1 to {_MAX_REQUEST_ID_CHARS} printable ASCII characters")
    return request_id


def _level_of(priority: str) -> int:
    if priority not in _LEVELS:
        raise InvalidArgumentError(f"priority must be 'interactive' or 'bulk', not {priority!r:.40}")
    return _LEVELS[priority]


@dataclass(frozen=True, slots=True)
class RequestOutcome(PlainData):
    """How one call that went to the server ended, for the user's own metrics.

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


#: Called in the thread or task of the call; must return quickly. What it raises is logged and dropped.
OnRequest: TypeAlias = Callable[[RequestOutcome], object]


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
class Read:
    """Await the content of a file whose `read` is async, `timeout` seconds at most; results in its bytes."""

    file: AsyncBinaryFile
    max_bytes: int
    timeout: float | None


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


Step: TypeAlias = Send[Any] | Work[Any] | Read | Pause | Acquire
Steps: TypeAlias = Generator[Step, Any, R]


def send(call: Callable[[float], R | Awaitable[R]], timeout: float) -> Steps[R]:
    """The answer to one message, which is sent again over a fresh connection where a kept one was dead."""
    deadline = time.monotonic() + timeout
    answer: R
    try:
        answer = yield Send(call, timeout)
    except StaleConnectionError:
        answer = yield Send(call, max(deadline - time.monotonic(), 0.001))
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
        retry = RetryState(call.max_retries, also_retry, len(self.replicas.all))
        try:
            answer = yield from self._attempts(call, method, ask, size, retry)
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
                answer: R = yield Send(partial(ask, replica.transport, headers), share)
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
