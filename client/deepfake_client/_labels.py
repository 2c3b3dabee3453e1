"""The class names of each version of the model, as the server tells them.

Triton shows `labels.txt` through the classification extension only: an output asked for as the top K classes comes
back as "value:index:label" strings. Their values have six decimals, so the scores themselves are always read as raw
floats, and this question is asked once for each version, with a black image.
"""

from __future__ import annotations

from ._errors import ProtocolError
from ._string_tensors import strings_in
from ._transports.base import Tensor


class LabelBook:
    """Labels by (model, version), each tuple in the order of the class indices."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}

    def get(self, model: str, version: str, count: int) -> tuple[str, ...] | None:
        """The labels of `version`, or None when they are not known or are not `count`."""
        labels = self._known.get((model, version))
        return labels if labels is not None and len(labels) == count else None

    def put(self, model: str, version: str, labels: tuple[str, ...]) -> None:
        self._known[model, version] = labels


def labels_from(tensor: Tensor) -> tuple[str, ...]:
    """Labels by class index from an output that was asked for as classes: BYTES, shape (1, K).

    Raises:
        ProtocolError: a class has no label, or two have the same.
    """
    by_index: dict[int, str] = {}
    for element in strings_in(tensor):
        _, _, rest = element.partition(":")
        index, _, label = rest.partition(":")
        if not index.isdecimal() or not label:
            raise ProtocolError("the model's classes have no names: its labels.txt is missing on the server")
        by_index[int(index)] = label
    if not by_index or sorted(by_index) != list(range(len(by_index))) or len(set(by_index.values())) != len(by_index):
        raise ProtocolError("the model's class names are incomplete or not distinct: check labels.txt on the server")
    return tuple(by_index[index] for index in range(len(by_index)))
