"""What a client does, without doing it: each call is a generator of steps, which do no input or output themselves.

A call yields the steps below and is sent their results, or has their errors thrown in. The sync and the async client
differ in how they carry the steps out and in nothing else, so they cannot drift apart.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from ._calls import Call, OnRequest, report
from ._credentials import Headers, Identity, redact
from ._errors import (
    AccessDeniedError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    DeepfakeError,
    InvalidArgumentError,
    ProtocolError,
    ServerError,
    UnknownModelError,
    WireError,
)
from ._images import name_of
from ._inputs import ModelInput, PixelsInput
from ._model_info import ModelInfo, Provenance, classes_in, info_from, provenance_in, provenance_request
from ._policy_guard import PolicyGuard
from ._replicas import ReplicaSet
from ._retry import RetryState
from ._tensors import PIXELS, PROBABILITIES, checked_pixels, tensor_of
from ._transports.base import (
    AnyTransport,
    InferRequest,
    InferResponse,
    ModelConfig,
    ModelMetadata,
    ModelQuery,
    RequestedOutput,
    Tensor,
)
from ._verdict import Verdict, labels_from, probabilities_in, verdicts_from
from ._verdict_log import PreparedImage, VerdictLog, digests_of_pixels, prepare_with_digest
from .preprocessing import ImageLimits, ImageSource

R = TypeVar("R")

_log = logging.getLogger("deepfake_client")

# The server gives up on a waiting request before the client does: a client that cancels first has crashed servers
# (triton-inference-server/server#7368), and a refusal says more than silence.
_QUEUE_SHARE = 0.9


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
            report(self.on_request, call, method, self.model, images, started, error)
            raise
        if isinstance(answer, InferResponse):
            call.bytes_received += sum(len(tensor.data) for tensor in answer.outputs.values())
        report(self.on_request, call, method, self.model, images, started, None)
        return answer

    def _attempts(self, call: Call, method: str, ask: Ask[R], size: int, retry: RetryState) -> Steps[R]:
        while True:
            if self.closed:
                raise ClientClosedError("the client was closed")
            remaining = call.remaining()
            if remaining <= 0:
                late = DeadlineExceededError(f"no answer within {call.timeout:g} s")
                raise named(retry.cause_of(late), None, call)
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


@dataclass(slots=True)
class Core:
    """The calls of a client, and the state that they share."""

    exchange: Exchange
    input: ModelInput
    model: str
    version: str
    limits: ImageLimits
    lock: threading.Lock | asyncio.Lock
    policy: PolicyGuard | None
    verdict_log: VerdictLog | None
    #: by the model's version, in the order of the class indices
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def classify(self, image: ImageSource, source: str | None, call: Call) -> Steps[Verdict]:
        """Decodes the image and asks for its verdict."""
        name = source if source is not None else name_of(image)
        try:
            prepared = yield from work(partial(self.prepare, image))
        except DeepfakeError as error:
            raise named(error, name, call) from None
        return (yield from self.classify_prepared(prepared, name, call))

    def prepare(self, image: ImageSource) -> PreparedImage:
        """Decodes the image where this side decodes, without a word to the server."""
        if self.verdict_log is None:
            return PreparedImage(self.input.prepare(image, self.limits), None)
        return prepare_with_digest(image, self.input, self.limits)

    def classify_prepared(self, prepared: PreparedImage, source: str | None, call: Call) -> Steps[Verdict]:
        """Asks for the verdict of an image that `prepare` has prepared."""
        try:
            return (yield from self._verdicts(prepared, source, call))[0]
        except DeepfakeError as error:
            raise named(error, source, call) from None

    def classify_pixels(self, pixels: object, source: str | None, call: Call, *, batch: bool) -> Steps[list[Verdict]]:
        """Asks for the verdicts of images that are preprocessed already."""
        try:
            if self.input.name != PIXELS:
                raise InvalidArgumentError(
                    "a client with decode='server' sends images, not pixels: use decode='client'"
                )
            tensor = tensor_of(checked_pixels(pixels, batch=batch))
            return (yield from self._verdicts(PreparedImage(tensor, None), source, call))
        except DeepfakeError as error:
            raise named(error, source, call) from None

    def ready(self, call: Call) -> Steps[bool]:
        """Whether one of the replicas takes requests for the model now; no retries."""
        query = ModelQuery(self.model, self.version, self.exchange.identity.headers(call.headers))
        replicas = self.exchange.replicas.all
        for asked, replica in enumerate(replicas):
            # One that hangs leaves the others their share of the time.
            deadline = time.monotonic() + call.remaining() / (len(replicas) - asked)
            try:
                if not (yield from send(partial(replica.transport.server_ready, query), _left(deadline))):
                    _log.info("%s is not ready", replica.endpoint)
                elif not (yield from send(partial(replica.transport.model_ready, query), _left(deadline))):
                    _log.info("%s is not ready for %s", replica.endpoint, query.model)
                else:
                    return True
            except (ServerError, WireError) as error:
                _log.info("%s is not ready: %s", replica.endpoint, redact(error.reason, query.headers))
        return False

    def model_info(self, call: Call) -> Steps[ModelInfo]:
        """Labels, input and limits of the model."""
        try:
            metadata = yield from self._metadata(self.model, self.version, call.part())
            config = yield from self._config(call.part())
            # The server's choice is the highest version by default; only an answer tells for certain.
            version, labels = yield from self._learn(call, self.version, classes_in(metadata))
            return info_from(metadata, config, version, labels, self.input.name)
        except DeepfakeError as error:
            raise named(error, None, call) from None

    def provenance(self, model_version: str, call: Call) -> Steps[Provenance | None]:
        """Where the weights of the classifier come from; None when the server does not say."""
        # The ensemble has a version of its own, and runs the classifier's highest.
        classifier = self.model if self.input.name == PIXELS else PixelsInput.model
        version = model_version or (self.version if classifier == self.model else "")
        try:
            if not version:
                version = yield from self._highest_version(classifier, call.part("-version"))
            return (yield from self._provenance_of(classifier, version, call))
        except DeepfakeError as error:
            raise named(error, None, call) from None

    def _verdicts(self, prepared: PreparedImage, source: str | None, call: Call) -> Steps[list[Verdict]]:
        tensor = prepared.tensor
        response = yield from self._infer(call, tensor, RequestedOutput(PROBABILITIES), self.version)
        scores = probabilities_in(response, tensor.shape[0])
        labels = yield from self._labels(call, response.version, len(scores[0]))
        policy = None
        if self.policy is not None:
            yield from self._require_fit(self.policy, call, response.version)
            policy = self.policy.policy
        verdicts = verdicts_from(scores, labels, response, call.request_id, source, policy)
        if (log := self.verdict_log) is not None:
            digest = prepared.digest
            yield from work(lambda: log.write(verdicts, digests_of_pixels(tensor) if digest is None else [digest]))
        return verdicts

    def _labels(self, call: Call, version: str, classes: int) -> Steps[tuple[str, ...]]:
        """The labels of `version`; of many calls that miss them, one asks."""
        labels = self.labels.get(version, ())
        if len(labels) == classes:
            return labels
        if not (yield Acquire(_left(call.deadline))):
            raise DeadlineExceededError("the labels could not be learned before the deadline")
        try:
            labels = self.labels.get(version, ())
            if len(labels) != classes:
                _, labels = yield from self._learn(call, version, classes)
            return labels
        finally:
            self.lock.release()

    def _learn(self, call: Call, version: str, classes: int) -> Steps[tuple[str, tuple[str, ...]]]:
        """Asks for the labels with a black image; results in (version, labels)."""
        wanted = RequestedOutput(PROBABILITIES, classes)
        # While a new version is rolled out, the replica asked may not have the one that answered a moment ago.
        response = yield from self._infer(
            call.part("-labels"), self.input.black(), wanted, version, also_retry=(UnknownModelError,)
        )
        tensor = response.outputs.get(PROBABILITIES)
        if tensor is None or tensor.datatype != "BYTES":
            raise ProtocolError(f"{PROBABILITIES} came without class names")
        labels = labels_from(tensor)
        if len(labels) != classes or (version and response.version != version):
            raise ProtocolError(f"the server named {len(labels)} of {classes} classes of version {response.version}")
        self.labels[response.version] = labels
        return response.version, labels

    def _require_fit(self, guard: PolicyGuard, call: Call, version: str) -> Steps[None]:
        """Refuses weights that the policy was not fitted for; of many calls that have to ask which they are, one does."""
        if guard.asks_nothing or guard.settled(version):
            return
        if not (yield Acquire(_left(call.deadline))):
            raise DeadlineExceededError("the weights could not be compared with the policy's before the deadline")
        try:
            if guard.settled(version):
                return
            served = version
            if self.input.name != PIXELS:  # the ensemble has a version of its own
                served = yield from self._highest_version(PixelsInput.model, call.part("-version"))
            provenance = None
            if guard.asks_for_weights:
                provenance = yield from self.provenance(served, call.part("-provenance"))
            guard.compare(version, served, provenance)
        finally:
            self.lock.release()

    def _highest_version(self, model: str, call: Call) -> Steps[str]:
        metadata = yield from self._metadata(model, "", call)
        return max(metadata.versions, key=lambda each: int(each) if each.isdecimal() else -1, default="")

    def _infer(
        self,
        call: Call,
        tensor: Tensor,
        output: RequestedOutput,
        version: str,
        also_retry: tuple[type[DeepfakeError], ...] = (),
    ) -> Steps[InferResponse]:
        def request(headers: Headers, timeout: float) -> InferRequest:
            return InferRequest(
                model=self.model,
                version=version,
                request_id=call.request_id,
                inputs={self.input.name: tensor},
                outputs=(output,),
                queue_timeout_microseconds=_queue_timeout(timeout),
                priority=call.priority,
                headers=headers,
            )

        response = yield from self.exchange.run(
            call,
            "infer",
            lambda transport, headers, timeout: transport.infer(request(headers, timeout), timeout),
            images=tensor.shape[0],
            size=len(tensor.data),
            also_retry=also_retry,
        )
        if response.request_id and response.request_id != call.request_id:
            raise ProtocolError("the answer belongs to another request")
        return response

    def _metadata(self, model: str, version: str, call: Call) -> Steps[ModelMetadata]:
        return self.exchange.run(
            call,
            "model_metadata",
            lambda transport, headers, timeout: transport.model_metadata(ModelQuery(model, version, headers), timeout),
        )

    def _config(self, call: Call) -> Steps[ModelConfig | None]:
        def ask(transport: AnyTransport, headers: Headers, timeout: float) -> ModelConfig | Awaitable[ModelConfig]:
            return transport.model_config(ModelQuery(self.model, self.version, headers), timeout)

        try:
            return (yield from self.exchange.run(call, "model_config", ask))
        except AccessDeniedError:
            return None  # a server may keep this API to its operators

    def _provenance_of(self, classifier: str, version: str, call: Call) -> Steps[Provenance | None]:
        def request(headers: Headers, timeout: float) -> InferRequest:
            return provenance_request(classifier, version, call.request_id, _queue_timeout(timeout), headers)

        try:
            response = yield from self.exchange.run(
                call,
                "infer",
                lambda transport, headers, timeout: transport.infer(request(headers, timeout), timeout),
            )
        except UnknownModelError:
            return None  # a repository without the model that tells
        return provenance_in(response, version)


def named(error: DeepfakeError, source: str | None, call: Call) -> DeepfakeError:
    """`error` with the image, request, endpoint and attempts it came from."""
    error.source = source if source is not None else error.source
    error.request_id = error.request_id or call.request_id
    error.endpoint = error.endpoint or call.endpoint
    error.attempts = error.attempts or call.attempts
    return error


def _left(deadline: float) -> float:
    """Seconds to `deadline`, and a moment where there are none: no transport takes 0."""
    return max(deadline - time.monotonic(), 0.001)


def _queue_timeout(remaining: float) -> int:
    """Microseconds that a request may wait in the server's queue, when its call has `remaining` seconds."""
    return max(1, int(remaining * _QUEUE_SHARE * 1e6))
