"""Class names come from the server, once for each version, and never from a constant."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from deepfake_client import OverloadedError, ProtocolError, Tensor
from deepfake_client._verdict import labels_from
from deepfake_client.preprocessing import Pixels

from tests.support.variants import AnyClient

Make = Callable[..., AnyClient]
Fake = Callable[..., Any]


def test_the_servers_names_are_used_in_the_order_of_the_classes(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    labels = ("échte", "fake:really", "other")
    verdict = make_client(transport=fake([0.2, 0.5, 0.3], labels=labels)).classify_pixels(pixels)
    assert list(verdict.scores) == list(labels)
    assert verdict.label == "fake:really"
    assert verdict.score == pytest.approx(0.5)


def test_many_first_calls_at_once_ask_for_the_names_once(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    transport = fake()
    client = make_client(transport=transport)
    with ThreadPoolExecutor(32) as pool:
        verdicts = list(pool.map(lambda _: client.classify_pixels(pixels), range(200)))
    assert len(verdicts) == len(transport.requests) == 200
    assert transport.label_requests == 1


def test_a_new_version_has_its_names_asked_for(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    transport = fake()
    client = make_client(transport=transport)
    assert client.classify_pixels(pixels).model_version == "1"
    transport.version, transport.labels = "2", ("Real one", "Deepfake")
    verdict = client.classify_pixels(pixels)
    assert (verdict.model_version, verdict.label) == ("2", "Real one")
    assert transport.label_requests == 2


def test_a_failed_question_for_the_names_is_asked_again_by_the_next_call(
    make_client: Make, fake: Fake, pixels: Pixels
) -> None:
    transport = fake(labels=("a", "a"))
    client = make_client(transport=transport)
    for _ in range(2):
        with pytest.raises(ProtocolError, match=r"labels\.txt"):
            client.classify_pixels(pixels)
    transport.labels = ("a", "b")
    assert client.classify_pixels(pixels).label == "a"


@pytest.mark.parametrize(
    ("elements", "labels"),
    [
        ([b"0.9:1:Real one", b"0.1:0:Deepfake"], ("Deepfake", "Real one")),
        ([b"0.9:0:a:b", b"0.1:1:c"], ("a:b", "c")),
        ([b"0.9:0", b"0.1:1"], None),
        ([b"0.9:0:", b"0.1:1:"], None),
        ([b"0.9:0:a", b"0.1:2:b"], None),
        ([b"0.9:0:a", b"0.1:1:a"], None),
        ([b"nonsense"], None),
        ([], None),
    ],
    ids=repr,
)
def test_names_are_read_from_the_classification_extension(
    elements: list[bytes], labels: tuple[str, ...] | None
) -> None:
    data = b"".join(len(element).to_bytes(4, "little") + element for element in elements)
    tensor = Tensor("BYTES", (1, len(elements)), data)
    if labels is None:
        with pytest.raises(ProtocolError):
            labels_from(tensor)
    else:
        assert labels_from(tensor) == labels


def test_a_string_tensor_that_lies_about_its_length_is_refused() -> None:
    with pytest.raises(ProtocolError):
        labels_from(Tensor("BYTES", (1, 1), b"\xff\xff\xff\x7fabc"))


def test_the_question_for_the_names_is_retried_like_any_other(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    transport = fake()
    answer, refusals = transport._names, [OverloadedError("full")] * 2

    def names(classes: int) -> Tensor:
        if refusals:
            raise refusals.pop()
        return answer(classes)

    transport._names = names
    assert make_client(transport=transport).classify_pixels(pixels).label == "Deepfake"
    assert transport.label_requests == 3
