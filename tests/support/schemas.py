"""Schemas of Kubernetes' own objects and, where they are at hand, of the operators' ones."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.support.project import ROOT

KUBERNETES_VERSIONS = ("1.34", "1.35", "1.36", "1.37")

# Definitions are not part of the project: a folder of YAML files, one CustomResourceDefinition in each.
CRDS = Path(os.environ.get("DEEPFAKE_TEST_CRDS", ROOT.parent / "shared" / "crds"))


def is_custom(manifest: dict[str, Any]) -> bool:
    group = manifest["apiVersion"].rpartition("/")[0]
    return ("." in group and not group.endswith(".k8s.io")) or group == "gateway.networking.k8s.io"


def error(manifest: dict[str, Any], version: str) -> str | None:
    """What Kubernetes `version` finds wrong with an object of its own; unknown fields count."""
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as wrong:
        return f"{wrong.json_path}: {wrong.message[:300]}"
    return None


def custom_error(manifest: dict[str, Any]) -> str | None:
    """The same for a custom object, by its definition."""
    schema = _custom_schemas()[manifest["apiVersion"], manifest["kind"]]
    wrong = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(manifest))
    return f"{wrong.json_path}: {wrong.message[:300]}" if wrong else None


@functools.cache
def _custom_schemas() -> dict[tuple[str, str], dict[str, Any]]:
    schemas = {}
    for path in CRDS.glob("*.yaml"):
        spec = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]  # noqa: S506 - both are safe
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            _close(schema, top=True)
            schemas[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return schemas


def _close(schema: Any, *, top: bool = False) -> None:
    """Refuse fields that the definition does not know; the API server would drop them without a word."""
    if isinstance(schema, list):
        for part in schema:
            _close(part)
    elif isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            if not schema.get("x-kubernetes-preserve-unknown-fields"):
                schema.setdefault("additionalProperties", False)
            for name, part in properties.items():
                if not (top and name == "metadata"):
                    _close(part)
        for name in ("items", "additionalProperties"):
            _close(schema.get(name))
