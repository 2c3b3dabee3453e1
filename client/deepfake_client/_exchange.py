"""One message and its answer: which replica it goes to, and when it is sent again; steps, as in `_core`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ._call_options import Call
from ._credentials import redact
from ._errors import ClientClosedError, ConnectionFailedError, DeadlineExceededError, DeepfakeError
from ._messages import InferRequest, InferResponse, Method, ModelQuery
from ._outcome import OnRequest, RequestOutcome, report
from ._replicas import ReplicaSet
from ._retry import RetryState
from ._steps import Pause, Send, Steps

T = TypeVar("T")
_log = logging.getLogger("deepfake_client")


@dataclass(slots=True)
class Exchange(Generic[T]):
    """The way of all messages of a client."""

    replicas: ReplicaSet[T]
    model: str
    on_request: OnRequest | None
    closed: bool = False

    def run(
        self,
        call: Call,
        method: Method,
        message: Callable[[float], InferRequest | ModelQuery],
        *,
        images: int = 0,
        size: int = 0,
        also_retry: tuple[type[DeepfakeError], ...] = (),
    ) -> Steps[Any]:
        """Sends until there is an answer, a reason to stop, or no time left; results in the answer.

        Args:
            message: what to send, by the seconds that its attempt has.
            images, size: how many images and payload bytes it has, for the outcome.
            also_retry: kinds of errors that are retried for this call though they usually are not.
        """
        started = time.monotonic()

        def ended(error: DeepfakeError | None) -> None:
            seconds = time.monotonic() - started
            report(self.on_request, RequestOutcome.of(call, method, self.model, images, seconds, error))

        try:
            answer = yield from self._attempts(call, method, message, size, RetryState(call.max_retries, also_retry))
        except DeepfakeError as error:
            ended(error)
            raise
        if isinstance(answer, InferResponse):
            call.bytes_received += sum(len(tensor.data) for tensor in answer.outputs.values())
        ended(None)
        return answer

    def _attempts(
        self,
        call: Call,
        method: Method,
        message: Callable[[float], InferRequest | ModelQuery],
        size: int,
        retry: RetryState,
    ) -> Steps[Any]:
        while True:
            if self.closed:
                raise ClientClosedError("the client was closed")
            remaining = call.remaining()
            if remaining <= 0:
                late = DeadlineExceededError(f"no answer within {call.timeout:g} s")
                raise named(retry.cause_of(late), None, call)
            choice = self.replicas.choose()
            replica = choice.replica
            # A replica that hangs must not take the whole deadline while another one could answer.
            share = remaining / 2 if self.replicas.has_another(replica) else remaining
            request = message(share)
            call.attempts, call.endpoint = call.attempts + 1, replica.endpoint
            call.bytes_sent += size
            try:
                answer = yield Send(replica.transport, method, request, share)
            except DeepfakeError as raised:
                error = raised
                if isinstance(raised, DeadlineExceededError) and share < remaining:
                    error = ConnectionFailedError(f"no answer within {share:.1f} s, and others are there to ask")
                error.reword(redact(error.reason, request.headers))
                self.replicas.report(choice, error)
                failover = self.replicas.can_replace(replica, error)
                pause = retry.pause_after(error, call.remaining(), failover=failover)
                if pause is None:
                    raise named(retry.cause_of(error), None, call) from None
                _log.info(
                    "%s %s: attempt %d at %s failed (%s), next in %.2f s",
                    method,
                    call.request_id,
                    call.attempts,
                    replica.endpoint,
                    error.reason,
                    pause,
                )
                yield Pause(pause)
            except BaseException:
                self.replicas.abandon(choice)
                raise
            else:
                self.replicas.report(choice, None)
                return answer


def named(error: DeepfakeError, source: str | None, call: Call) -> DeepfakeError:
    """`error` with the image, request, endpoint and attempts it came from."""
    error.source = source if source is not None else error.source
    error.request_id = error.request_id or call.request_id
    error.endpoint = error.endpoint or call.endpoint
    error.attempts = error.attempts or call.attempts
    return error
