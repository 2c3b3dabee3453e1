"""What a client does, without doing it: each method is a generator of steps (see `_steps`).

This is all that the sync and the async client have in common, which is everything but how they wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ._call_options import Call
from ._credentials import Headers, Identity, redact
from ._errors import (
    AccessDeniedError,
    DeadlineExceededError,
    DeepfakeError,
    InvalidArgumentError,
    ProtocolError,
    ServerError,
    UnknownModelError,
    WireError,
)
from ._exchange import Exchange, named
from ._images import name_of
from ._inputs import ModelInput, PixelsInput
from ._messages import (
    InferRequest,
    InferResponse,
    Method,
    ModelConfig,
    ModelMetadata,
    ModelQuery,
    RequestedOutput,
    Tensor,
)
from ._model_info import ModelInfo, Provenance, classes_in, info_from, provenance_in, provenance_request
from ._policy_guard import PolicyGuard
from ._steps import Lock, Send, Steps, Work
from ._tensors import PIXELS, PROBABILITIES, checked_pixels, tensor_of
from ._verdict import Verdict, labels_from, probabilities_in, verdicts_from
from ._verdict_log import PreparedImage, VerdictLog, digests_of_pixels, prepare_with_digest
from .preprocessing import ImageLimits, ImageSource

T = TypeVar("T")
_log = logging.getLogger("deepfake_client")

# The server gives up on a waiting request before the client does: a client that cancels first has crashed servers
# (triton-inference-server/server#7368), and a refusal says more than silence.
_QUEUE_SHARE = 0.9


class Releasable(Protocol):
    """The lock of `threading` or of `asyncio`; the latter is acquired differently but released the same way."""

    def release(self) -> None: ...


@dataclass(slots=True)
class Core(Generic[T]):
    """The state that all calls of a client share."""

    exchange: Exchange[T]
    input: ModelInput
    model: str
    version: str
    limits: ImageLimits
    identity: Identity
    lock: Releasable
    labels: dict[str, tuple[str, ...]]
    policy: PolicyGuard | None
    verdict_log: VerdictLog | None

    def classify(self, image: ImageSource, source: str | None, call: Call) -> Steps[Verdict]:
        """Decodes the image and asks for its verdict."""
        name = source if source is not None else name_of(image)
        try:
            prepared: PreparedImage = yield Work(lambda: self.prepare(image))
            return (yield from self._verdicts(prepared, name, call))[0]
        except DeepfakeError as error:
            raise named(error, name, call) from None

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
        query = ModelQuery(self.model, self.version, self._headers(call))
        for asked, replica in enumerate(self.exchange.replicas.all):
            # One that hangs leaves the others their share of the time.
            deadline = time.monotonic() + call.remaining() / (len(self.exchange.replicas.all) - asked)
            try:
                methods: tuple[Method, ...] = ("server_ready", "model_ready")
                for method in methods:
                    if not (yield Send(replica.transport, method, query, max(deadline - time.monotonic(), 0.001))):
                        _log.info("%s is not ready (%s)", replica.endpoint, method)
                        break
                else:
                    return True
            except (ServerError, WireError) as error:
                _log.info("%s is not ready: %s", replica.endpoint, redact(error.reason, query.headers))
        return False

    def model_info(self, call: Call) -> Steps[ModelInfo]:
        """Labels, input and limits of the model."""
        try:
            metadata = yield from self.exchange.run(call.part(), "model_metadata", self._query(call))
            try:
                config: ModelConfig | None = yield from self.exchange.run(
                    call.part(), "model_config", self._query(call)
                )
            except AccessDeniedError:
                config = None  # a server may keep this API to its operators
            classes = classes_in(metadata)
            # The server's choice is the highest version by default; only an answer tells for certain.
            version, labels = yield from self._learn(call, self.version, classes)
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

            def message(remaining: float) -> InferRequest:
                waits = _queue_timeout(remaining)
                return provenance_request(classifier, version, call.request_id, waits, self._headers(call))

            try:
                response: InferResponse = yield from self.exchange.run(call, "infer", message)
            except UnknownModelError:
                return None  # a repository without the model that tells
            return provenance_in(response, version)
        except DeepfakeError as error:
            raise named(error, None, call) from None

    def _highest_version(self, model: str, call: Call) -> Steps[str]:
        query = ModelQuery(model, "", self._headers(call))
        metadata: ModelMetadata = yield from self.exchange.run(call, "model_metadata", lambda _: query)
        return max(metadata.versions, key=lambda each: int(each) if each.isdecimal() else -1, default="")

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
            yield Work(lambda: log.write(verdicts, digests_of_pixels(tensor) if digest is None else [digest]))
        return verdicts

    def _labels(self, call: Call, version: str, classes: int) -> Steps[tuple[str, ...]]:
        """The labels of `version`; of many calls that miss them, one asks."""
        labels = self.labels.get(version, ())
        if len(labels) == classes:
            return labels
        if not (yield Lock(max(call.remaining(), 0.001))):
            raise DeadlineExceededError("the labels could not be learned before the deadline")
        try:
            labels = self.labels.get(version, ())
            if len(labels) != classes:
                _, labels = yield from self._learn(call, version, classes)
            return labels
        finally:
            self.lock.release()

    def _require_fit(self, guard: PolicyGuard, call: Call, version: str) -> Steps[None]:
        """Refuses weights that the policy was not fitted for; of many calls that have to ask which they are, one does."""
        if guard.asks_nothing or guard.settled(version):
            return
        if not (yield Lock(max(call.remaining(), 0.001))):
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

    def _infer(
        self,
        call: Call,
        tensor: Tensor,
        output: RequestedOutput,
        version: str,
        also_retry: tuple[type[DeepfakeError], ...] = (),
    ) -> Steps[InferResponse]:
        def message(remaining: float) -> InferRequest:
            return InferRequest(
                model=self.model,
                version=version,
                request_id=call.request_id,
                inputs={self.input.name: tensor},
                outputs=(output,),
                queue_timeout_microseconds=_queue_timeout(remaining),
                priority=call.priority,
                headers=self._headers(call),
            )

        response: InferResponse = yield from self.exchange.run(
            call, "infer", message, images=tensor.shape[0], size=len(tensor.data), also_retry=also_retry
        )
        if response.request_id and response.request_id != call.request_id:
            raise ProtocolError("the answer belongs to another request")
        return response

    def _query(self, call: Call) -> Callable[[float], ModelQuery]:
        return lambda _: ModelQuery(self.model, self.version, self._headers(call))

    def _headers(self, call: Call) -> Headers:
        return self.identity.headers(call.headers)


def _queue_timeout(remaining: float) -> int:
    """Microseconds that a request may wait in the server's queue, when its call has `remaining` seconds."""
    return max(1, int(remaining * _QUEUE_SHARE * 1e6))
