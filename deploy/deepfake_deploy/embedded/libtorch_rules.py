"""What Triton's LibTorch backend demands of a model's configuration, as pure functions.

The embedded `pytorch` backend applies them, so that a model which loads here loads in NVIDIA's container, and maps its
tensors alike there. Source: triton-inference-server/pytorch_backend, README («Important Notes»). Its names of the form
`NAME__<index>`, which no model here has, are not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# LibTorch has no BF16, UINT16 and UINT32 tensors at its border; it takes strings as lists, which no model here needs.
TORCH_DTYPES = {
    "TYPE_BOOL": "bool",
    "TYPE_UINT8": "uint8",
    "TYPE_INT8": "int8",
    "TYPE_INT16": "int16",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float32",
    "TYPE_FP64": "float64",
}


class ConfigurationError(ValueError):
    """The model configuration does not fit the model, or LibTorch could not serve it."""


def forward_order(names: Sequence[str], forward_arguments: Sequence[str]) -> list[str]:
    """The configured inputs in the order of the arguments of `forward()` (without `self`).

    By name when every input is called like an argument, else by the order of the configuration.
    """
    if len(names) != len(forward_arguments):
        raise ConfigurationError(
            f"the configuration expects {len(names)} inputs, the model provides {len(forward_arguments)} "
            f"({', '.join(forward_arguments)})"
        )
    return list(forward_arguments if set(names) == set(forward_arguments) else names)


def torch_dtype_name(kind: str, tensor: Mapping[str, Any]) -> str:
    """Name of the torch dtype of a configured tensor (`kind` is "input" or "output", for the error)."""
    try:
        return TORCH_DTYPES[tensor["data_type"]]
    except KeyError:
        raise ConfigurationError(f"unsupported datatype {tensor['data_type']} for {kind} '{tensor['name']}'") from None


def boolean_parameter(parameters: Mapping[str, Any], key: str, default: bool) -> bool:
    """A boolean of the configuration's `parameters`; LibTorch knows true, false, 1 and 0 and nothing else."""
    value = parameters[key]["string_value"] if key in parameters else str(default)
    if value.lower() not in ("true", "1", "false", "0"):
        raise ConfigurationError(f"parameter {key} is '{value}'; expected true or false")
    return value.lower() in ("true", "1")
