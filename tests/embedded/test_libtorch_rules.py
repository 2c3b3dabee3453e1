"""The rules of NVIDIA's LibTorch backend, as the embedded one applies them."""

from __future__ import annotations

import pytest
from deepfake_deploy.embedded import libtorch_rules as rules


def test_inputs_map_by_argument_name_when_every_name_is_one() -> None:
    assert rules.input_positions(["mask", "pixels"], ["pixels", "mask"]) == {"mask": 1, "pixels": 0}


def test_inputs_map_by_index_when_every_name_ends_in_one() -> None:
    assert rules.input_positions(["b__1", "a__0"], ["x", "y"]) == {"b__1": 1, "a__0": 0}


def test_inputs_map_by_order_when_one_name_fits_neither_rule() -> None:
    assert rules.input_positions(["y", "other"], ["x", "y"]) == {"y": 0, "other": 1}
    assert rules.input_positions(["a__1", "b"], ["x", "y"]) == {"a__1": 0, "b": 1}
    assert rules.input_positions(["a__x", "b__0"], ["x", "y"]) == {"a__x": 0, "b__0": 1}


def test_another_count_of_inputs_is_refused() -> None:
    with pytest.raises(rules.ConfigurationError, match=r"expects 1 inputs, the model provides 2 \(x, y\)"):
        rules.input_positions(["x"], ["x", "y"])


@pytest.mark.parametrize("names", [["a__0", "b__2"], ["a__1", "b__1"]])
def test_an_index_without_an_argument_of_its_own_is_refused(names: list[str]) -> None:
    with pytest.raises(rules.ConfigurationError, match="argument"):
        rules.input_positions(names, ["x", "y"])


def test_outputs_map_by_index_or_by_order_and_never_by_name() -> None:
    assert rules.output_positions(["b__1", "a__0"]) == {"b__1": 1, "a__0": 0}
    assert rules.output_positions(["logits", "probabilities"]) == {"logits": 0, "probabilities": 1}


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


def test_integers() -> None:
    assert rules.integer_parameter({"KEY": {"string_value": "2"}}, "KEY") == 2
    assert rules.integer_parameter({}, "KEY") is None
    with pytest.raises(rules.ConfigurationError, match="expected an integer"):
        rules.integer_parameter({"KEY": {"string_value": "two"}}, "KEY")
