"""The comparison with the model card's own code: which model it is made with, and what the report says of it.

The code itself is `deepfake_evaluation.card`, which needs the extra `export`; it is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, NoReferenceError
from .parity import compare
from .predictions import Prediction
from .report import Part
from .served_model import ServedModel

if TYPE_CHECKING:
    from deepfake_deploy.export import Progress

    from deepfake_evaluation.card import Reference


class Comparison:
    """The served model and its reference, ready to be compared; made by `open_comparison`."""

    def __init__(self, model: ServedModel, reference: Reference) -> None:
        self._model, self._reference = model, reference

    def measure(
        self, predictions: Iterable[Prediction], folder: Path, advance: Callable[[], None] = lambda: None
    ) -> Part:
        """Run the images that the server classified through the reference; one at a time, in flat memory.

        Args:
            predictions: of the server.
            folder: that the files lie below.
            advance: called after each.
        """
        model, reference = self._model, self._reference
        parity = compare(predictions, model.labels, folder, reference.probabilities, advance)
        precision = None if model.provenance is None else model.provenance.precision
        same = _same_weights(model, reference.weights_sha256)
        name = " at ".join(filter(None, [reference.model_id, reference.revision]))
        lines = [
            f"Reference: {name} in transformers {reference.transformers_version} ({reference.processor}, fp32, photos "
            f"turned upright); the server runs {precision or 'in unknown precision'}",
            *parity.lines(),
        ]
        if same is not True:
            known = "has other weights than" if same is False else "may have other weights than"
            lines.insert(1, f"The reference {known} those that the served model was exported from.")
        figures = {
            "model_id": reference.model_id,
            "revision": reference.revision,
            "weights_sha256": dict(reference.weights_sha256),
            "same_weights": same,
            "image_processor": reference.processor,
            "transformers_version": reference.transformers_version,
            "torch_version": reference.torch_version,
            "precision": "fp32",
            "server_precision": precision,
            **parity.figures(),
        }
        return Part("reference", figures, "\n".join(lines))


@contextmanager
def open_comparison(model: ServedModel, named: str | None, progress: Progress) -> Iterator[Comparison]:
    """Load the reference.

    Args:
        model: what is served.
        named: Hub id, local folder or "stand-in"; None for the one that the server's provenance names.
        progress: told of each step.

    Raises:
        InputError: the server does not name it.
        NoReferenceError: it cannot be had.
        ModuleNotFoundError: the extra `export` is not installed.
    """
    from deepfake_deploy.export import ExportError

    from deepfake_evaluation.card import open_reference

    checkpoint, revision = (named, None) if named else _named_by_server(model)
    try:
        with open_reference(checkpoint, revision, model.labels, progress) as reference:
            yield Comparison(model, reference)
    except ExportError as error:
        raise NoReferenceError(f"no reference: {error}") from None


def _named_by_server(model: ServedModel) -> tuple[str, str | None]:
    provenance = model.provenance
    if provenance is None:
        raise InputError("the server does not say which weights it serves; name them with --reference-model")
    if provenance.stand_in or provenance.revision is not None:
        return provenance.model_id, provenance.revision
    raise InputError(
        f"the served model was exported from a folder, {provenance.model_id}, and a server's folders are not looked "
        "for here; name it, or a copy, with --reference-model"
    )


def _same_weights(model: ServedModel, reference: Mapping[str, str]) -> bool | None:
    """Whether the served weights were exported from those of the reference; None where the provenance does not say."""
    exported: Any = None if model.provenance is None else model.provenance.document.get("weights_sha256")
    if not isinstance(exported, Mapping):
        return None
    return sorted(map(str, exported.values())) == sorted(reference.values())
