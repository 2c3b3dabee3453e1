"""Classifies a labelled folder through the server, and goes on where an earlier run stopped."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepfake_client import DeepfakeClient, DeepfakeError, ImageError, Verdict

from .errors import ModelChangedError, UnansweredError
from .folder import LabelledFolder
from .journal import Journal, open_journal
from .photo import Damaging, Photo, digest_of
from .predictions import Prediction
from .served_model import ServedModel, ask_model

_NONE = -1


class Answers:
    """The predictions of one pass over the images, in the folder's order; read from the disk each time."""

    def __init__(self, journal: Journal, places: array[int]) -> None:
        self._journal, self._places = journal, places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Prediction]:
        return map(self._journal.read, self._places)

    def readable(self) -> Iterator[tuple[str, str]]:
        """Path and SHA-256 of each image that has scores."""
        for place in self._places:
            digest = self._journal.digest(place)
            prediction = self._journal.read(place)
            if digest is not None and prediction.scores is not None:
                yield prediction.file, digest


class EvaluationRun:
    """One evaluation of a folder; made by `open_run`.

    Attributes:
        model: what answers.
        folder: the images.
        note: what a person should know of earlier answers, or None.
    """

    def __init__(
        self, client: DeepfakeClient, model: ServedModel, folder: LabelledFolder, journal: Journal, concurrency: int
    ) -> None:
        self.model, self.folder, self.note = model, folder, journal.note
        self._client, self._journal, self._concurrency = client, journal, concurrency

    def classify(self, advance: Callable[[], None] = lambda: None) -> Answers:
        """Have every file of the folder classified; those that cannot be decoded come with their error.

        Args:
            advance: called after each file.

        Raises:
            UnansweredError: the server left some without an answer; those it gave are kept.
            ModelChangedError: it began to serve something else; the answers of this pass are forgotten.
            OutputError: an answer could not be written.
        """
        files = ((file, None) for _, file in self.folder)
        return self._pass(files, "", None, advance)

    def classify_damaged(
        self, answers: Answers, name: str, damaging: Damaging, advance: Callable[[], None] = lambda: None
    ) -> Answers:
        """Have the images that could be read classified once more, damaged.

        Args:
            answers: of `classify`.
            name: of the damage with its parameters; answers are found again by it.
            damaging: makes of an upright RGB image the damaged one, the same each time.
            advance, and errors: as for `classify`.
        """
        return self._pass(answers.readable(), name, damaging, advance)

    def _pass(
        self,
        files: Iterable[tuple[str, str | None]],
        damage: str,
        damaging: Damaging | None,
        advance: Callable[[], None],
    ) -> Answers:
        places = array("q")
        waiting: deque[tuple[int, Photo]] = deque()

        def missing() -> Iterator[Photo]:
            for file, digest in files:
                place = self._find(file, digest, damage)
                places.append(_NONE if place is None else place)
                if place is None:
                    photo = Photo(self.folder.path, file, damaging)
                    waiting.append((len(places) - 1, photo))
                    yield photo
                else:
                    advance()

        failures = _Failures(self._concurrency)
        results = self._client.classify_many(missing(), concurrency=self._concurrency, priority="bulk")
        for result in results:
            ordinal, photo = waiting.popleft()
            if isinstance(result, Verdict):
                self._require_version(result)
                scores = tuple(result.scores[label] for label in self.model.labels)
                places[ordinal] = self._journal.append(photo.file, photo.digest, damage, scores, None)
            elif isinstance(result.error, ImageError):
                places[ordinal] = self._journal.append(photo.file, photo.digest, damage, None, result.error.reason)
            failures.count(result)
            if failures.hopeless:
                break
            advance()
        if failures.first is None:
            self._require_same_model()
        elif self._client.ready():
            # What failed may have been the server's end, and what is there now another one.
            with suppress(DeepfakeError):
                self._require_same_model()
        failures.require_none(len(places))
        return Answers(self._journal, places)

    def _find(self, file: str, digest: str | None, damage: str) -> int | None:
        if not len(self._journal):
            return None
        found = digest or digest_of(self.folder.path / file)
        return None if found is None else self._journal.find(file, found, damage)

    def _require_version(self, verdict: Verdict) -> None:
        if verdict.model_version != self.model.version:
            self._journal.roll_back()
            raise ModelChangedError(
                f"the server began to answer with version {verdict.model_version} in place of {self.model.version}; "
                "run the command again"
            )

    def _require_same_model(self) -> None:
        """Weights can be exchanged under the same version too."""
        if ask_model(self._client).identity() != self.model.identity():
            self._journal.roll_back()
            raise ModelChangedError("the server's weights were exchanged in the middle; run the command again")
        self._journal.settle()


class _Failures:
    """Counts images that have no answer through the server's fault, and not their own; `first` is why, or None."""

    def __init__(self, concurrency: int) -> None:
        self._limit = max(8, concurrency)  # one image alone may be more than the model can take
        self.first: DeepfakeError | None = None
        self._total = self._in_a_row = 0

    @property
    def hopeless(self) -> bool:
        """As many in a row as are sent at a time, or 8: each was tried again until its deadline, so the server is away."""
        return self._in_a_row >= self._limit

    def count(self, result: object) -> None:
        """Take one result into account."""
        error = getattr(result, "error", None)
        if isinstance(error, DeepfakeError) and not isinstance(error, ImageError):
            self.first = self.first or error
            self._total += 1
            self._in_a_row += 1
        else:
            self._in_a_row = 0

    def require_none(self, images: int) -> None:
        """Raise `UnansweredError` where there are any."""
        if self.first is not None:
            others = f" and {self._total - 1} more of {images} so far" if self._total > 1 else ""
            raise UnansweredError(
                f"no answer for {self.first}{others}; what was answered is kept, run the same command again to go on"
            )


@contextmanager
def open_run(client: DeepfakeClient, images: Path, answers: Path, *, concurrency: int = 16) -> Iterator[EvaluationRun]:
    """Begin to evaluate a folder, or go on with it.

    Args:
        client: asks the server; its model must have two classes.
        images: folder with one folder of images for each label.
        answers: file that keeps what the server has answered, for the next run over the same images.
        concurrency: requests on their way at a time.

    Raises:
        InputError: the folder cannot be used with this model, or `answers` cannot be written.
        OutputError: another evaluation has `answers` open.
        DeepfakeError: the server does not answer.
    """
    model = ask_model(client)
    folder = LabelledFolder(images, model.labels)
    with open_journal(answers, model.identity()) as journal:
        yield EvaluationRun(client, model, folder, journal, concurrency)
