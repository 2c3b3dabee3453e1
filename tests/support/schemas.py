"""Schemas of Kubernetes' own objects and, where they are at hand, of the custom ones."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from tests.support.project import ROOT

KUBERNETES_VERSIONS = ("1.34", "1.35", "1.36", "1.37")

# Definitions are not part of the project: a folder of YAML files, one CustomResourceDefinition in each.
CRDS = Path(os.environ.get("DEEPFAKE_TEST_CRDS", ROOT.parent / "shared" / "crds"))


def is_custom(manifest: dict[str, Any]) -> bool:
    group = manifest["apiVersion"].rpartition("/")[0]
    return ("." in group and not group.endswith(".k8s.io")) or group == "gateway.networking.k8s.io"


def errors(manifest: dict[str, Any], version: str) -> list[str]:
    """What Kubernetes `version` finds wrong with an object of its own; unknown fields count."""
    api = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", manifest["apiVersion"])
    validator = _kubernetes_validator(version, f"{manifest['kind'].lower()}-{api}")
    return [_line(error) for error in validator.iter_errors(manifest)]


def custom_errors(manifest: dict[str, Any]) -> list[str]:
    """The same for a custom object, by its definition."""
    schemas = _custom_schemas()
    schema = schemas[manifest["apiVersion"], manifest["kind"]]
    return [_line(error) for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest)]


def _line(error: jsonschema.ValidationError) -> str:
    return f"{error.json_path}: {error.message[:300]}"


@functools.cache
def _definitions(version: str) -> Resource[Any]:
    return Resource.from_contents(schema_contents(f"{_folder(version)}/_definitions.json", version))


@functools.cache
def _kubernetes_validator(version: str, name: str) -> jsonschema.Draft202012Validator:
    # As kubernetes_validate.validate() does it, but each file is read once.
    schema = schema_contents(f"{_folder(version)}/{name}.json", version)
    registry: Registry[Any] = _definitions(version) @ (Resource.from_contents(schema) @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


def _folder(version: str) -> str:
    return f"kubernetes-json-schema/v{version}.0-local-strict"


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
