"""Which replica is asked, how long one that failed is left out, and when it is trusted again."""

from __future__ import annotations

from collections import Counter

import pytest
from deepfake_client import ConnectionFailedError, DeadlineExceededError, NotReadyError, OverloadedError
from deepfake_client._replicas import ReplicaSet


class Clock:
    now = 100.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replicas(clock: Clock) -> ReplicaSet[str]:
    return ReplicaSet([(name, name) for name in "abc"], clock)


def chosen(replicas: ReplicaSet[str], times: int) -> Counter[str]:
    """Whom `times` requests go to that are all answered."""
    found: Counter[str] = Counter()
    for _ in range(times):
        choice = replicas.choose()
        replicas.report(choice, None)
        found[choice.replica.endpoint] += 1
    return found


def fail(replicas: ReplicaSet[str], name: str, error: Exception | None = None) -> None:
    """Lets a request to `name` fail, however many it takes to come to it."""
    while True:
        choice = replicas.choose()
        if choice.replica.endpoint == name:
            replicas.report(choice, error or ConnectionFailedError("reset"))  # type: ignore[arg-type]
            return
        replicas.report(choice, None)


def test_replicas_are_taken_in_turn(replicas: ReplicaSet[str]) -> None:
    assert chosen(replicas, 30) == {"a": 10, "b": 10, "c": 10}


@pytest.mark.parametrize("error", [ConnectionFailedError("reset"), NotReadyError("stopping")], ids=repr)
def test_one_that_fails_is_left_out_and_tried_again_later(
    replicas: ReplicaSet[str], clock: Clock, error: Exception
) -> None:
    fail(replicas, "a", error)
    assert chosen(replicas, 20)["a"] == 0
    clock.now += 1.01
    assert chosen(replicas, 30)["a"] >= 9


def test_the_absence_doubles_up_to_half_a_minute(replicas: ReplicaSet[str], clock: Clock) -> None:
    for absence in (1, 2, 4, 8, 16, 30, 30):
        fail(replicas, "a")
        clock.now += absence - 0.1
        assert chosen(replicas, 9)["a"] == 0
        clock.now += 0.2


def test_only_one_request_tries_it_at_a_time(replicas: ReplicaSet[str], clock: Clock) -> None:
    fail(replicas, "a")
    clock.now += 1.01
    waiting = [replicas.choose() for _ in range(20)]
    assert [choice.replica.endpoint for choice in waiting].count("a") == 1
    trial = next(choice for choice in waiting if choice.replica.endpoint == "a")
    replicas.abandon(trial)
    assert [replicas.choose().replica.endpoint for _ in range(20)].count("a") == 1


def test_an_answer_to_an_older_request_does_not_mean_that_it_is_back(replicas: ReplicaSet[str]) -> None:
    older = next(choice for choice in iter(replicas.choose, None) if choice.replica.endpoint == "a")
    fail(replicas, "a")
    replicas.report(older, None)
    assert chosen(replicas, 20)["a"] == 0


def test_requests_that_fail_together_are_one_failure(replicas: ReplicaSet[str], clock: Clock) -> None:
    together = [choice for choice in (replicas.choose() for _ in range(60)) if choice.replica.endpoint == "a"]
    for choice in together:
        replicas.report(choice, ConnectionFailedError("reset"))
    clock.now += 1.01
    assert chosen(replicas, 20)["a"] > 0


@pytest.mark.parametrize("error", [OverloadedError("full"), DeadlineExceededError("late")], ids=repr)
def test_a_full_or_slow_one_is_not_left_out(replicas: ReplicaSet[str], error: Exception) -> None:
    fail(replicas, "a", error)
    assert chosen(replicas, 30)["a"] == 10


def test_with_all_out_the_one_that_is_due_first_is_asked(replicas: ReplicaSet[str], clock: Clock) -> None:
    for name in "bca":
        fail(replicas, name)
        clock.now += 0.1
    assert replicas.choose().replica.endpoint == "b"


def test_an_only_one_is_asked_always(clock: Clock) -> None:
    lone = ReplicaSet([("a", "a")], clock)
    for _ in range(5):
        choice = lone.choose()
        lone.report(choice, ConnectionFailedError("refused"))
        assert not lone.can_replace(choice.replica, ConnectionFailedError("refused"))
