"""What Triton's LibTorch backend demands of a model's configuration, as pure functions.

The embedded `pytorch` backend applies them, so that a model which loads here loads in NVIDIA's container and maps
its tensors alike there. Source: triton-inference-server/pytorch_backend, README («Important Notes») and
src/pt/model_instance_state.cc.
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


def input_positions(names: Sequence[str], forward_arguments: Sequence[str]) -> dict[str, int]:
    """Position in `forward()` of each configured input.

    Args:
        names: the inputs in the order of the configuration.
        forward_arguments: the arguments of `forward()`, without `self`.

    By argument name when every input has one; else by the `NAME__<index>` convention when all follow it; else by the
    order of the configuration.
    """
    if len(names) != len(forward_arguments):
        raise ConfigurationError(
            f"the configuration expects {len(names)} inputs, the model provides {len(forward_arguments)} "
            f"({', '.join(forward_arguments)})"
        )
    if all(name in forward_arguments for name in names):
        return {name: forward_arguments.index(name) for name in names}
    positions = _indices_by_name(names) or {name: index for index, name in enumerate(names)}
    for name, index in positions.items():
        if index >= len(forward_arguments):
            raise ConfigurationError(f"input '{name}' refers to argument {index}, which forward() does not have")
    if len(set(positions.values())) != len(names):
        raise ConfigurationError(f"the inputs {', '.join(names)} refer to the same argument of forward()")
    return positions


def output_positions(names: Sequence[str]) -> dict[str, int]:
    """Position in the returned tuple of each configured output: by `NAME__<index>` when all follow it, else by order.

    Never by name: two outputs listed in the wrong order are swapped in silence.
    """
    return _indices_by_name(names) or {name: index for index, name in enumerate(names)}


def torch_dtype_name(kind: str, tensor: Mapping[str, Any]) -> str:
    """Name of the torch dtype of a configured tensor (`kind` is "input" or "output", for the error)."""
    try:
        return TORCH_DTYPES[tensor["data_type"]]
    except KeyError:
        raise ConfigurationError(f"unsupported datatype {tensor['data_type']} for {kind} '{tensor['name']}'") from None


def boolean_parameter(parameters: Mapping[str, Any], key: str, default: bool) -> bool:
    """A boolean of the configuration's `parameters`; LibTorch knows true, false, 1 and 0 and nothing else."""
    if key not in parameters:
        return default
    value = parameters[key]["string_value"]
    if value.lower() in ("true", "1"):
        return True
    if value.lower() in ("false", "0"):
        return False
    raise ConfigurationError(f"parameter {key} is '{value}'; expected true or false")


def integer_parameter(parameters: Mapping[str, Any], key: str) -> int | None:
    """An integer of the configuration's `parameters`, or None where it is not set."""
    if key not in parameters:
        return None
    value = parameters[key]["string_value"]
    try:
        return int(value)
    except ValueError:
        raise ConfigurationError(f"parameter {key} is '{value}'; expected an integer") from None


def _indices_by_name(names: Sequence[str]) -> dict[str, int] | None:
    indices = {}
    for name in names:
        _, separator, index = name.partition("__")
        if not separator or not (index.isascii() and index.isdigit()):
            return None
        indices[name] = int(index)
    return indices
