"""The rules of NVIDIA's LibTorch backend, as the embedded one applies them."""

from __future__ import annotations

import pytest
from deepfake_deploy.embedded import libtorch_rules as rules


def test_inputs_map_by_argument_name_when_every_name_is_one() -> None:
    assert rules.forward_order(["mask", "pixels"], ["pixels", "mask"]) == ["pixels", "mask"]


def test_inputs_map_by_order_when_one_name_is_no_argument() -> None:
    assert rules.forward_order(["y", "other"], ["x", "y"]) == ["y", "other"]


def test_another_count_of_inputs_is_refused() -> None:
    with pytest.raises(rules.ConfigurationError, match=r"expects 1 inputs, the model provides 2 \(x, y\)"):
        rules.forward_order(["x"], ["x", "y"])


@pytest.mark.parametrize("datatype", ["TYPE_BF16", "TYPE_UINT16", "TYPE_UINT32", "TYPE_STRING"])
def test_a_datatype_that_libtorch_does_not_pass_is_refused_by_name(datatype: str) -> None:
    with pytest.raises(rules.ConfigurationError, match=f"unsupported datatype {datatype} for input 'pixels'"):
        rules.torch_dtype_name("input", {"name": "pixels", "data_type": datatype})


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("True", True), ("1", True), ("false", False), ("0", False)]
)
def test_booleans_are_true_false_one_and_zero(text: str, value: bool) -> None:
    assert rules.boolean_parameter({"KEY": {"string_value": text}}, "KEY", not value) is value
    assert rules.boolean_parameter({}, "KEY", value) is value


def test_yes_is_no_boolean() -> None:
    with pytest.raises(rules.ConfigurationError, match="parameter KEY is 'yes'"):
        rules.boolean_parameter({"KEY": {"string_value": "yes"}}, "KEY", True)
