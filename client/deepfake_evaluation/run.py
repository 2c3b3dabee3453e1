"""Has the served model classify a labelled folder, and goes on where an earlier run stopped."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepfake_client import DeepfakeClient, DeepfakeError, ImageError, ImageLimits, Provenance, Verdict
from deepfake_client._images import read_encoded
from deepfake_client.preprocessing import Decoding, load_image, to_pixels
from PIL import Image

from . import InputError, ModelChangedError, UnansweredError
from .folder import LabelledFolder
from .journal import Answer, Journal, open_journal

STAND_IN_NOTE = "STAND-IN WEIGHTS: random, verdicts mean nothing"

#: Makes of an upright RGB image the damaged one.
Damaging = Callable[[Image.Image], Image.Image]

_FAILURES_IN_A_ROW = 8  # or as many as are sent at a time; one image alone may be more than the model can take


@dataclass(frozen=True)
class ServedModel:
    """What answers, as the server calls it; the provenance of its weights is None when the server does not say."""

    name: str
    version: str
    labels: tuple[str, str]
    provenance: Provenance | None

    @property
    def weights_note(self) -> str | None:
        """What every report, table and plot has to say of the weights, where something has to be said."""
        if self.provenance is None:
            return "provenance unknown: the server does not say which weights it serves"
        return STAND_IN_NOTE if self.provenance.stand_in else None

    def describe(self) -> str:
        """One line: name and version, and where the weights come from."""
        if self.provenance is None:
            return f"{self.name} version {self.version}"
        origin = " ".join(filter(None, [self.provenance.model_id, (self.provenance.revision or "")[:12]]))
        digest = self.provenance.model_pt_sha256[:12]
        return f"{self.name} version {self.version}, {origin}, {self.provenance.precision}, sha256 {digest}"

    def by_label(self, scores: Sequence[float]) -> dict[str, float]:
        """Scores in the order of the classes, as `Verdict.scores` has them."""
        return dict(zip(self.labels, scores, strict=True))

    def identity(self) -> dict[str, Any]:
        """What has to be equal for two answers to be of the same model."""
        digest = None if self.provenance is None else self.provenance.model_pt_sha256
        return {"name": self.name, "version": self.version, "labels": list(self.labels), "model_pt_sha256": digest}


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image of a labelled folder."""

    file: str
    """Path below the evaluated folder, with slashes; its first part is the label's folder."""
    scores: tuple[float, ...] | None
    """Probability of each class in the order of the model's labels, or None and the error."""
    error: str | None = None
    sha256: str | None = None
    """Of the file, in hexadecimal; None where it could not be read."""

    @property
    def label(self) -> str:
        """The true label, as the folder tells it."""
        return self.file.partition("/")[0]

    def predicted(self, labels: Sequence[str]) -> str | None:
        """The label with the highest score, of two equal ones the first, as the client chooses it."""
        return None if self.scores is None else labels[self.scores.index(max(self.scores))]


class EvaluationRun:
    """One evaluation of a folder; made by `open_run`. `notes` are what a person should know before it begins.

    `decoding` is the client's. Damaged images are decoded exactly, before the damage.
    """

    def __init__(
        self,
        client: DeepfakeClient,
        model: ServedModel,
        folder: LabelledFolder,
        journal: Journal,
        concurrency: int,
        decoding: Decoding,
    ) -> None:
        self.model, self.folder, self.decoding = model, folder, decoding
        self.notes = [note for note in (journal.note, folder.left_out_note) if note]
        self._client, self._journal, self._concurrency = client, journal, concurrency

    def classify(self, advance: Callable[[], None] = lambda: None) -> list[Prediction]:
        """Have every file of the folder classified; those that cannot be decoded come with their error.

        `advance` is called after each file.

        Raises:
            UnansweredError: the server left some without an answer; those it gave are kept.
            ModelChangedError: it began to serve something else.
            OutputError: an answer could not be written.
        """
        # Answers are found again by this name, and those to images that were decoded otherwise are others.
        name = "" if self.decoding == "exact" else f"decoding {self.decoding}"
        return self._pass([Prediction(file, None) for file in self.folder.files], name, None, advance)

    def classify_damaged(
        self, predictions: Iterable[Prediction], name: str, damaging: Damaging, advance: Callable[[], None]
    ) -> list[Prediction]:
        """Have the images that `classify` could read classified once more, damaged; otherwise as `classify`.

        `name` is the damage with its parameters: answers are found again by it. `damaging` makes of an upright RGB
        image the damaged one, the same each time.
        """
        return self._pass([each for each in predictions if each.scores is not None], name, damaging, advance)

    def _pass(
        self, images: Iterable[Prediction], damage: str, damaging: Damaging | None, advance: Callable[[], None]
    ) -> list[Prediction]:
        predictions: dict[str, Prediction] = {}
        asked: deque[Prediction] = deque()

        def missing() -> Iterator[io.BytesIO]:
            for image in images:
                data, sha256, answer = b"", image.sha256, self._journal.find(damage, image.sha256)
                if answer is None:
                    data, sha256, answer = self._read(image.file, damage, damaging)
                predictions[image.file] = _prediction(image.file, sha256, answer)
                if answer is None:
                    asked.append(predictions[image.file])
                    stream = io.BytesIO(data)
                    stream.name = str(self.folder.path / image.file)  # as errors show it
                    yield stream
                else:
                    advance()

        failures: list[DeepfakeError] = []
        in_a_row = 0
        for result in self._client.classify_many(missing(), concurrency=self._concurrency, priority="bulk"):
            image = asked.popleft()
            if not isinstance(result, Verdict) and not isinstance(result.error, ImageError):
                failures.append(result.error)
                in_a_row += 1
                if in_a_row >= max(_FAILURES_IN_A_ROW, self._concurrency):
                    break  # each was tried again until its deadline, so the server is away
                continue
            in_a_row = 0
            answer = self._scores(result) if isinstance(result, Verdict) else result.error.reason
            self._journal.append(image.file, damage, image.sha256 or "", answer)
            predictions[image.file] = _prediction(image.file, image.sha256, answer)
            advance()
        self._end_pass(failures, len(predictions))
        return list(predictions.values())

    def _read(self, file: str, damage: str, damaging: Damaging | None) -> tuple[bytes, str | None, Answer | None]:
        """What to send for a file, the digest of the file, and its answer where there is one already.

        A damaged image is sent as a small PNG of the pixels that the model takes, which nobody changes any more.
        """
        sha256 = None
        try:
            data = read_encoded(self.folder.path / file, ImageLimits().max_bytes)
            sha256 = hashlib.sha256(data).hexdigest()
            answer = self._journal.find(damage, sha256)
            if answer is None and damaging is not None:
                png = io.BytesIO()
                Image.fromarray(to_pixels(damaging(load_image(data)))).save(png, "PNG", compress_level=1)
                data = png.getvalue()
            return data, sha256, answer
        except ImageError as error:
            return b"", sha256, error.reason
        except (OSError, ValueError) as error:  # of a damage that cannot be done
            return b"", sha256, str(error)

    def _scores(self, verdict: Verdict) -> Answer:
        if verdict.model_version != self.model.version:
            raise ModelChangedError(
                f"the server began to answer with version {verdict.model_version} in place of {self.model.version}; "
                "run the command again"
            )
        return tuple(verdict.scores[label] for label in self.model.labels)

    def _end_pass(self, failures: Sequence[DeepfakeError], images: int) -> None:
        """Raise where images have no answer, or where weights were exchanged, as they can be under the same version."""
        # What failed may have been the server's end, and what is there now another one.
        if not failures or self._client.ready():
            with suppress(DeepfakeError) if failures else nullcontext():
                self._require_same_model()
        if not failures:
            return
        others = f" and {len(failures) - 1} more of {images} so far" if len(failures) > 1 else ""
        raise UnansweredError(
            f"no answer for {failures[0]}{others}; what was answered is kept, run the same command again to go on"
        )

    def _require_same_model(self) -> None:
        if ask_model(self._client).identity() != self.model.identity():
            self._journal.forget()
            raise ModelChangedError("the server's weights were exchanged in the middle; run the command again")


def _prediction(file: str, sha256: str | None, answer: Answer | None) -> Prediction:
    if isinstance(answer, str):
        return Prediction(file, None, answer, sha256)
    return Prediction(file, answer, None, sha256)


@contextmanager
def open_run(
    client: DeepfakeClient, images: Path, answers: Path, *, concurrency: int = 16, decoding: Decoding = "exact"
) -> Iterator[EvaluationRun]:
    """Begin to evaluate the folder `images`, or go on with it; `answers` is the file of what was answered.

    `decoding` is that of `client`.
    """
    model = ask_model(client)
    folder = LabelledFolder(images, model.labels)
    with open_journal(answers, model.identity()) as journal:
        yield EvaluationRun(client, model, folder, journal, concurrency, decoding)


def ask_model(client: DeepfakeClient) -> ServedModel:
    """The model behind `client`."""
    info = client.model_info()
    if len(info.labels) != 2:
        raise InputError(f"{info.name}: has {len(info.labels)} classes; only a model of two can be evaluated")
    return ServedModel(info.name, info.version, (info.labels[0], info.labels[1]), client.provenance(info.version))
