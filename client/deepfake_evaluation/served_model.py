"""The model that the server serves, and what has to be said about it wherever its figures are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deepfake_client import DeepfakeClient, Provenance

from .errors import InputError

STAND_IN = "STAND-IN WEIGHTS: random, verdicts mean nothing"
PROVENANCE_UNKNOWN = "provenance unknown: the server does not say which weights it serves"


@dataclass(frozen=True)
class ServedModel:
    """What answers.

    Attributes:
        name, version: as the server calls it.
        labels: of its two classes, in their order.
        provenance: of its weights; None when the server does not say.
    """

    name: str
    version: str
    labels: tuple[str, str]
    provenance: Provenance | None

    @property
    def weights_note(self) -> str | None:
        """What every report, table and plot has to say of the weights, where something has to be said."""
        if self.provenance is None:
            return PROVENANCE_UNKNOWN
        return STAND_IN if self.provenance.stand_in else None

    def describe(self) -> str:
        """One line: name and version, and where the weights come from."""
        if self.provenance is None:
            return f"{self.name} version {self.version}"
        origin = " ".join(filter(None, [self.provenance.model_id, (self.provenance.revision or "")[:12]]))
        digest = self.provenance.model_pt_sha256[:12]
        return f"{self.name} version {self.version}, {origin}, {self.provenance.precision}, sha256 {digest}"

    def identity(self) -> dict[str, Any]:
        """What has to be equal for two answers to be of the same model."""
        digest = None if self.provenance is None else self.provenance.model_pt_sha256
        return {"name": self.name, "version": self.version, "labels": list(self.labels), "model_pt_sha256": digest}


def ask_model(client: DeepfakeClient) -> ServedModel:
    """The model behind `client`.

    Raises:
        InputError: it has not two classes.
        DeepfakeError: the server does not answer.
    """
    info = client.model_info()
    if len(info.labels) != 2:
        raise InputError(f"{info.name}: has {len(info.labels)} classes; only a model of two can be evaluated")
    return ServedModel(info.name, info.version, (info.labels[0], info.labels[1]), client.provenance(info.version))
