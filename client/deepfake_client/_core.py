"""What a client does: its calls as generators of steps, which `_calls` describes, and the state that they share."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from ._calls import Acquire, Call, Exchange, Read, Steps, send, work
from ._credentials import Headers, redact
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
from ._images import ASYNC_READ, AsyncBinaryFile, name_of
from ._model_info import ModelInfo, Provenance, classes_in, info_from, provenance_in, provenance_question
from ._policy import PolicyGuard
from ._tensors import (
    PIXELS,
    PIXELS_INPUT,
    PROBABILITIES,
    PROVENANCE,
    ModelInput,
    PreparedImage,
    checked_pixels,
    digests_of_pixels,
    tensor_of,
)
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
from ._verdict import Verdict, VerdictLog, labels_from, probabilities_in, verdicts_from
from .preprocessing import ImageLimits, ImageSource

_log = logging.getLogger("deepfake_client")

# The server gives up on a waiting request before the client does: a client that cancels first has crashed servers
# (triton-inference-server/server#7368), and a refusal says more than silence.
_QUEUE_SHARE = 0.9


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

    def classify(self, image: ImageSource | AsyncBinaryFile, source: str | None, call: Call) -> Steps[Verdict]:
        """Decodes the image and asks for its verdict."""
        call.source = name_of(image) if source is None else checked_source(source)
        prepared = yield from self.prepare_any(image, call.remaining())
        return (yield from self.classify_prepared(prepared, call.source, call))

    def prepare_any(self, image: ImageSource | AsyncBinaryFile, timeout: float | None = None) -> Steps[PreparedImage]:
        """`prepare` beside the calls; a file whose `read` is async has `timeout` seconds to give its content."""
        try:
            return (yield from work(partial(self.prepare, image)))
        except InvalidArgumentError as error:
            if error.reason != ASYNC_READ:
                raise
        content = yield Read(cast("AsyncBinaryFile", image), self.limits.max_bytes, timeout)
        return (yield from work(partial(self.prepare, content)))

    def prepare(self, image: ImageSource | AsyncBinaryFile) -> PreparedImage:
        """Reads the image, and decodes it where this side decodes, without a word to the server."""
        return self.input.prepare(image, self.limits, digest=self.verdict_log is not None)

    def classify_prepared(self, prepared: PreparedImage, source: str | None, call: Call) -> Steps[Verdict]:
        """Asks for the verdict of an image that `prepare` has prepared."""
        call.source = source
        return (yield from self._verdicts(prepared, call))[0]

    def classify_pixels(self, pixels: object, source: str | None, call: Call, *, batch: bool) -> Steps[list[Verdict]]:
        """Asks for the verdicts of images that are preprocessed already."""
        call.source = checked_source(source)
        if self.input.name != PIXELS:
            raise InvalidArgumentError("a client with decode='server' sends images, not pixels: use decode='client'")
        return (yield from self._verdicts(PreparedImage(tensor_of(checked_pixels(pixels, batch=batch)), None), call))

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
        metadata = yield from self._metadata(self.model, self.version, call.part())
        config = yield from self._config(call.part())
        # The server's choice is the highest version by default; only an answer tells for certain.
        version, labels = yield from self._learn(call, self.version, classes_in(metadata))
        return info_from(metadata, config, version, labels, self.input.name)

    def provenance(self, model_version: str, call: Call) -> Steps[Provenance | None]:
        """Where the weights of the classifier come from; None when the server does not say."""
        # The ensemble has a version of its own, and runs the classifier's highest.
        classifier = self.model if self.input.name == PIXELS else PIXELS_INPUT.model
        version = model_version or (self.version if classifier == self.model else "")
        if not version:
            version = yield from self._highest_version(classifier, call.part("-version"))
        question = provenance_question(classifier, version)
        try:
            response = yield from self._infer(call, PROVENANCE, "", question, RequestedOutput(PROVENANCE), 0)
        except UnknownModelError:
            return None  # a repository without the model that tells
        return provenance_in(response, version)

    def _verdicts(self, prepared: PreparedImage, call: Call) -> Steps[list[Verdict]]:
        tensor = prepared.tensor
        images, inputs, output = tensor.shape[0], {self.input.name: tensor}, RequestedOutput(PROBABILITIES)
        response = yield from self._infer(call, self.model, self.version, inputs, output, images)
        scores = probabilities_in(response, images)
        labels = yield from self._labels(call, response.version, len(scores[0]))
        policy = None
        if self.policy is not None:
            yield from self._require_fit(self.policy, call, response.version)
            policy = self.policy.policy
        verdicts = verdicts_from(scores, labels, response, call.request_id, call.source, policy)
        if (log := self.verdict_log) is not None:
            digests = digests_of_pixels(tensor) if prepared.digest is None else [prepared.digest]
            yield from work(partial(log.write, verdicts, digests))
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
        part, inputs = call.part("-labels"), {self.input.name: self.input.black()}
        wanted = RequestedOutput(PROBABILITIES, classes)
        # While a new version is rolled out, the replica asked may not have the one that answered a moment ago.
        response = yield from self._infer(part, self.model, version, inputs, wanted, 1, also_retry=(UnknownModelError,))
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
                served = yield from self._highest_version(PIXELS_INPUT.model, call.part("-version"))
            provenance = None
            if guard.policy.model_pt_sha256 is not None:
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
        model: str,
        version: str,
        inputs: Mapping[str, Tensor],
        output: RequestedOutput,
        images: int,
        *,
        also_retry: tuple[type[DeepfakeError], ...] = (),
    ) -> Steps[InferResponse]:
        def ask(transport: AnyTransport, headers: Headers, timeout: float) -> InferResponse | Awaitable[InferResponse]:
            waiting = max(1, int(timeout * _QUEUE_SHARE * 1e6))
            request = InferRequest(
                model, version, call.request_id, inputs, (output,), waiting, headers=headers, priority=call.priority
            )
            return transport.infer(request, timeout)

        size = sum(len(tensor.data) for tensor in inputs.values())
        response = yield from self.exchange.run(call, "infer", ask, images=images, size=size, also_retry=also_retry)
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


def _left(deadline: float) -> float:
    """Seconds to `deadline`, and a moment where there are none: no transport takes 0."""
    return max(deadline - time.monotonic(), 0.001)


def checked_source(source: str | None) -> str | None:
    """The name of an image, as the caller gives it; errors and results show it."""
    if source is not None and not isinstance(source, str):
        raise InvalidArgumentError(f"source must be text, not {type(source).__name__}")
    return source
