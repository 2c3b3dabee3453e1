"""A policy turns scores into decisions, and is never applied to weights that it was not fitted for."""

from __future__ import annotations

import asyncio
import json
import math
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deepfake_client import (
    AsyncDeepfakeClient,
    AsyncFakeTransport,
    DecisionPolicy,
    DeepfakeClient,
    InvalidArgumentError,
    PolicyEvidence,
    PolicyMismatchError,
    Verdict,
)
from deepfake_client._policy import PolicyGuard
from deepfake_client.preprocessing import Pixels

from tests.support.exports import exported_files
from tests.support.variants import AnyClient

Make = Callable[..., AnyClient]
Fake = Callable[..., Any]

EVIDENCE = PolicyEvidence(400, 500, 0.01, 0.95, 0, 0.006, 0, 0.0075, 30, 0.08, 0.01)
POLICY = DecisionPolicy(2.0, 0.8, 0.1, "deepfake_vs_real", "1", "ab" * 32, False, EVIDENCE)
DOCUMENT = {
    "weights": "checkpoint",
    "model_id": "someone/faces",
    "revision": None,
    "precision": "bf16",
    "model_pt_sha256": "ab" * 32,
    "labels": ["Deepfake", "Real one"],
}


def scores(deepfake: float, real: float | None = None) -> dict[str, float]:
    return {"Deepfake": deepfake, "Real one": 1 - deepfake if real is None else real}


def test_scores_are_calibrated_and_then_compared_with_the_thresholds() -> None:
    policy = DecisionPolicy(temperature=2.0, deepfake_threshold=0.75, real_threshold=0.25)
    assert policy.probability(scores(0.9)) == pytest.approx(0.75)  # odds 9, of which the square root is 3
    decisions = {0.95: "Deepfake", 0.9001: "Deepfake", 0.89: "unsure", 0.5: "unsure", 0.11: "unsure", 0.09: "Real one"}
    assert {score: policy.decide(scores(score)) for score in decisions} == decisions


def test_temperature_scaling_is_the_softmax_of_the_logits_over_the_temperature() -> None:
    random = np.random.default_rng(0)
    for first, second in random.normal(0, 8, (100, 2)):
        logits = np.array([first, second])
        probabilities = np.exp(logits) / np.exp(logits).sum()
        expected = np.exp(logits / 3) / np.exp(logits / 3).sum()
        policy = DecisionPolicy(3.0, 0.5, 0.5)
        assert policy.probability(scores(*probabilities)) == pytest.approx(expected[0], rel=1e-9)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 100.0])
def test_scores_that_a_float_has_rounded_to_nothing_are_no_error(temperature: float) -> None:
    policy = DecisionPolicy(temperature, deepfake_threshold=0.5, real_threshold=0.5)
    sure, less_sure = policy.probability(scores(1.0, 0.0)), policy.probability(scores(1.0, 1e-30))
    assert 0.5 <= less_sure <= sure <= 1
    assert policy.probability(scores(0.0, 1.0)) == pytest.approx(1 - sure)
    assert (policy.decide(scores(1.0, 0.0)), policy.decide(scores(0.0, 1.0))) == ("Deepfake", "Real one")
    if temperature == 100.0:
        assert less_sure < sure < 0.71  # e^0.874 to 1


def test_a_threshold_that_is_left_out_is_never_reached() -> None:
    assert DecisionPolicy(1.0, None, 0.2).decide(scores(1.0)) == "unsure"
    assert DecisionPolicy(1.0, 0.8, None).decide(scores(0.0)) == "unsure"


@pytest.mark.parametrize(
    "wrong",
    [{"Deepfake": 0.5}, {"Deepfake": 0.5, "real": 0.5}, scores(math.nan), scores(1.5), scores(0.1, -0.1)],
    ids=repr,
)
def test_scores_of_other_labels_or_that_are_no_probabilities_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgumentError):
        POLICY.decide(wrong)


def test_a_policy_is_the_same_after_it_was_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text("an older one")
    for policy in (POLICY, DecisionPolicy(1 / 3, None, 0.1)):
        policy.save(path)
        assert DecisionPolicy.load(path) == DecisionPolicy.load(str(path)) == policy
        assert [entry.name for entry in tmp_path.iterdir()] == ["policy.json"]
    assert pickle.loads(pickle.dumps(POLICY)) == POLICY  # noqa: S301


def test_a_policy_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.mkdir()
    with pytest.raises(OSError, match="policy"):
        POLICY.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy.json"]


def document(**changes: Any) -> bytes:
    """A policy file, with fields changed, or taken out where the change is `...`."""
    fields = {
        "format": "deepfake-decision-policy",
        "format_version": 1,
        "temperature": 1.5,
        "deepfake_threshold": 0.9,
        "real_threshold": 0.1,
        "model": None,
        "model_version": None,
        "model_pt_sha256": None,
        "stand_in": False,
        "evidence": None,
    }
    return json.dumps({key: value for key, value in {**fields, **changes}.items() if value is not ...}).encode()


EVIDENCE_FIELDS = {name: getattr(EVIDENCE, name) for name in EVIDENCE.__slots__}


def test_the_file_that_the_next_ones_are_made_wrong_from_is_right(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_bytes(document(evidence=EVIDENCE_FIELDS))
    assert DecisionPolicy.load(tmp_path / "policy.json") == DecisionPolicy(1.5, 0.9, 0.1, evidence=EVIDENCE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b" " * 70_000, "more than 65,536 bytes"),
        (b"[]", "not a policy"),
        (b'"policy"', "not a policy"),
        (document(format=...), "not a policy"),
        (document(format_version=2), "format version 2"),
        (document(format_version=True), "format version True"),
        (document(temperature=...), "temperature is missing"),
        (document(temperature=0), "temperature must be a number from 0.01 to 100, not 0"),
        (document(temperature=math.nan), "temperature must be"),
        (document(temperature=math.inf), "temperature must be"),
        (document(temperature="1"), "temperature must be"),
        (document(temperature=True), "temperature must be"),
        (document(temperature=10**400), "temperature must be"),
        (document(deepfake_threshold=1.01), "deepfake_threshold must be"),
        (document(real_threshold=-0.01), "real_threshold must be"),
        (document(real_threshold=[]), "real_threshold must be"),
        (document(real_threshold=0.95), "real_threshold, 0.95, must not be over deepfake_threshold, 0.9"),
        (document(model=7), "model must be"),
        (document(model="m" * 500), "model must be"),
        (document(model_version=""), "model_version must be"),
        (document(model_pt_sha256="AB" * 32), "model_pt_sha256 must be"),
        (document(model_pt_sha256="ab"), "model_pt_sha256 must be"),
        (document(stand_in="no"), "stand_in must be"),
        (document(evidence=[1]), "evidence must be"),
        (document(evidence={}), "evidence.confidence is missing"),
        (document(evidence={**EVIDENCE_FIELDS, "deepfakes": 1.5}), "evidence.deepfakes must be a count"),
        (document(evidence={**EVIDENCE_FIELDS, "ece_after": 2}), "evidence.ece_after must be"),
        (document(evidence={**EVIDENCE_FIELDS, "more": 2}), "evidence.more is no field"),
        (document(treshold=0.5), "treshold is no field"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_no_policy_is_refused_in_a_line_that_names_it(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(content)
    with pytest.raises(InvalidArgumentError) as caught:
        DeepfakeClient(policy=path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind_of_path", ["missing", "folder", "pipe"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, kind_of_path: str) -> None:
    path = tmp_path / "policy.json"
    if kind_of_path == "folder":
        path.mkdir()
    elif kind_of_path == "pipe":
        os.mkfifo(path)
    with pytest.raises(InvalidArgumentError, match=f"^{path}: "):
        DecisionPolicy.load(path)


def test_something_else_than_a_policy_or_a_path_is_refused(make_client: Make, fake: Fake) -> None:
    with pytest.raises(InvalidArgumentError, match="policy must be"):
        make_client(transport=fake(), policy={"temperature": 1})


def test_without_a_policy_verdicts_are_as_before(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    verdict = make_client(transport=fake(provenance=DOCUMENT)).classify_pixels(pixels)
    assert verdict.decision is None
    assert set(verdict.to_dict()) == {"source", "label", "scores", "model", "model_version"}


def test_every_way_to_classify_gives_the_decision(
    make_client: Make, fake: Fake, pixels: Pixels, tmp_path: Path
) -> None:
    POLICY.save(tmp_path / "policy.json")
    client = make_client(transport=fake([0.97, 0.03], provenance=DOCUMENT), policy=tmp_path / "policy.json")
    verdicts = [
        client.classify(pixels),
        client.classify_pixels(pixels),
        *client.classify_batch(np.stack([pixels, pixels])),
        *client.classify_many([pixels, pixels]),
    ]
    assert {verdict.decision for verdict in verdicts} == {"Deepfake"}
    # The scores stay the model's own.
    assert {verdict.score for verdict in verdicts} == {float(np.float32(0.97))}
    assert verdicts[0].to_dict()["decision"] == "Deepfake"
    copy = pickle.loads(pickle.dumps(verdicts[0]))  # noqa: S301
    assert isinstance(copy, Verdict)
    assert copy == verdicts[0]


def test_images_that_the_server_decodes_get_the_same_decision(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    transport = fake([0.6, 0.4], provenance=DOCUMENT, version="1")
    assert make_client(transport=transport, policy=POLICY, decode="server").classify(pixels).decision == "unsure"


def test_the_weights_are_asked_for_once_by_many_calls(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    transport = fake(provenance=DOCUMENT)
    asked = count_questions(transport)
    client = make_client(transport=transport, policy=POLICY)
    with ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(lambda _: client.classify_pixels(pixels), range(100)))
    assert {verdict.decision for verdict in verdicts} == {"unsure"}
    assert len(asked) == 1


def count_questions(transport: Any) -> list[Any]:
    asked: list[Any] = []
    tell = transport._tell_provenance

    def telling(request: Any) -> Any:
        asked.append(request)
        return tell(request)

    transport._tell_provenance = telling
    return asked


@pytest.mark.parametrize("decode", ["client", "server"])
def test_other_weights_get_an_error_that_names_both(make_client: Make, fake: Fake, pixels: Pixels, decode: str) -> None:
    transport = fake(provenance={**DOCUMENT, "model_pt_sha256": "cd" * 32}, version="2")
    asked = count_questions(transport)
    client = make_client(transport=transport, policy=POLICY, decode=decode)
    for _ in range(3):
        with pytest.raises(PolicyMismatchError) as caught:
            client.classify(pixels, source="photo.jpg")
    assert len(asked) == 1
    message = str(caught.value)
    assert "abababababab…" in message
    assert "version 2 has cdcdcdcdcdcd…" in message
    assert "calibrate again" in message
    assert caught.value.source == "photo.jpg"


def test_the_same_weights_under_another_version_are_welcome(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    client = make_client(transport=fake([0.001, 0.999], provenance=DOCUMENT, version="7"), policy=POLICY)
    assert client.classify_pixels(pixels).decision == "Real one"


def test_a_server_that_does_not_tell_its_weights_is_not_trusted(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    with pytest.raises(PolicyMismatchError, match="does not say"):
        make_client(transport=fake(), policy=POLICY).classify_pixels(pixels)


@pytest.mark.parametrize("decode", ["client", "server"])
def test_without_a_digest_the_version_is_compared(make_client: Make, fake: Fake, pixels: Pixels, decode: str) -> None:
    transport = fake()
    client = make_client(transport=transport, policy=replace(POLICY, model_pt_sha256=None), decode=decode)
    assert client.classify(pixels).decision == "unsure"
    transport.version = "2"
    with pytest.raises(PolicyMismatchError, match="version 1, and version 2 answers"):
        client.classify(pixels)


def test_a_policy_for_no_weights_in_particular_asks_nothing(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    transport = fake(provenance=DOCUMENT)
    asked = count_questions(transport)
    client = make_client(transport=transport, policy=DecisionPolicy(1.0, 0.8, 0.1))
    assert client.classify_pixels(pixels).decision == "Deepfake"
    assert asked == []


def test_other_labels_are_an_error_and_no_decision(make_client: Make, fake: Fake, pixels: Pixels) -> None:
    transport = fake(labels=("fake", "real"))
    with pytest.raises(InvalidArgumentError, match="«fake», «real»"):
        make_client(transport=transport, policy=DecisionPolicy(1.0, 0.9, 0.1)).classify_pixels(pixels)


def test_weights_that_change_under_a_running_client_are_seen_after_half_a_minute() -> None:
    now = [0.0]
    guard = PolicyGuard(DecisionPolicy(1.0, 0.9, 0.1, model_version="1"), lambda: now[0])
    assert not guard.settled("1")
    guard.compare("1", "1", None)
    now[0] = 29
    assert guard.settled("1")
    assert not guard.settled("2")
    now[0] = 31
    assert not guard.settled("1")
    with pytest.raises(PolicyMismatchError):
        guard.compare("1", "2", None)
    with pytest.raises(PolicyMismatchError):
        guard.settled("1")
    now[0] = 62
    assert not guard.settled("1")  # asked again, since the right ones may be back


async def test_the_question_does_not_stop_the_event_loop(pixels: Pixels) -> None:
    transport = AsyncFakeTransport(provenance=DOCUMENT)
    async with AsyncDeepfakeClient(transport=transport, policy=POLICY) as client:
        verdicts = await asyncio.gather(*[client.classify_pixels(pixels) for _ in range(20)])
    assert {verdict.decision for verdict in verdicts} == {"unsure"}


@pytest.mark.parametrize("decode", ["client", "server"])
def test_a_real_server_over_each_protocol(
    make_client: Make, url: str, repository: Path, pixels: Pixels, decode: str
) -> None:
    digest = json.loads(exported_files(repository)[1].read_text())["model_pt_sha256"]
    right = DecisionPolicy(1.0, 0.5, 0.5, model_pt_sha256=digest)
    verdict = make_client(url, policy=right, decode=decode).classify(pixels)
    assert verdict.decision == verdict.label
    wrong = DecisionPolicy(1.0, 0.5, 0.5, model_pt_sha256="ab" * 32)
    with pytest.raises(PolicyMismatchError, match=f"version 1 has {digest[:12]}…"):
        make_client(url, policy=wrong, decode=decode).classify(pixels)
