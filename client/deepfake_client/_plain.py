"""Results as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


class PlainData:
    """What results that are dataclasses have in common."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain types, ready for `json.dumps`; errors as their text."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, PlainData):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Exception) else value
