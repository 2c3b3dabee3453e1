"""Locust's side without a load: options, how many users run when, and what makes a run fail."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
from deepfake_cli.options import CredentialFiles

from loadtests.capacity import __main__ as capacity
from loadtests.traffic.options import GRPC_SCHEMES, HTTP_SCHEMES, add_options, credentials, urls_for


class LocustParser(ArgumentParser):
    """Locust's parser, as far as it differs from argparse's."""

    def add_argument(self, *names: Any, include_in_web_ui: bool = True, **options: Any) -> Any:  # noqa: ARG002
        return super().add_argument(*names, **options)


def parsed(*arguments: str) -> Namespace:
    parser = LocustParser()
    add_options(parser)
    return parser.parse_args(arguments)


def test_the_defaults_are_distinct_pixels_in_a_closed_loop() -> None:
    options = parsed()
    assert (options.payload, options.repeat_rate, options.rate, options.known_answers) == ("pixels", 0.0, 0.0, "")


def test_files_of_tls_and_a_token_are_the_users() -> None:
    files = [
        "--client-tls-ca",
        "ca.pem",
        "--client-tls-cert",
        "c.pem",
        "--client-tls-key",
        "c.key",
        "--token-file",
        "t",
    ]
    expected = CredentialFiles(Path("ca.pem"), Path("c.pem"), Path("c.key"), Path("t"))
    assert credentials(parsed(*files)) == expected
    assert credentials(parsed()) == CredentialFiles()


def test_the_capacity_search_takes_them_for_a_server_that_is_named(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    options = capacity.parsed(["--token-file", str(token), "--url", "grpc://a:1"])
    assert options.credentials == CredentialFiles(token_file=token)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--tls-ca", "ca.pem"], "--tls-… and --token-file are for a server that --url names"),
        (["--tls-ca", "ca.pem", "--url", "grpc://a:1"], "grpc://a:1: TLS files are for grpcs:// and https:// URLs"),
        (["--headroom", "1"], "--headroom: must be 0 or more and below 1, not 1"),
        (["--traffic", "0"], "--traffic: must be above 0, not 0"),
        (["--repeats", "0"], "--repeats: must be 1 or more, not 0"),
    ],
)
def test_the_capacity_search_refuses_what_makes_no_sense(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        capacity.parsed(arguments)
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--repeat-rate", "1.1"], "--repeat-rate: must be between 0 and 1, not 1.1"),
        (["--known-rate", "nan"], "--known-rate: must be between 0 and 1, not nan"),
        (["--rate", "-1"], "--rate: must be 0 or more, not -1"),
        (["--slo-p95-ms", "inf"], "--slo-p95-ms: must be 0 or more"),
        (["--deadline-seconds", "0"], "--deadline-seconds: must be above 0"),
        (["--wait-ready-seconds", "-1"], "--wait-ready-seconds: must be 0 or more"),
        (["--shape-steps", "0"], "--shape-steps: must be 1 or more"),
        (["--image-side", "300"], "512 at least, not 300"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parsed(*arguments)
    assert reason in capsys.readouterr().err


def test_each_protocol_takes_its_urls_from_the_host() -> None:
    host = "grpc://a:8001,http://b:8000,grpcs://c"
    assert urls_for(host, GRPC_SCHEMES) == ["grpc://a:8001", "grpcs://c"]
    assert urls_for(host, HTTP_SCHEMES) == ["http://b:8000"]
    assert urls_for(None, HTTP_SCHEMES) == []


@pytest.fixture(autouse=True)
def without_locusts_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locust patches sockets and threads of whoever imports it."""
    monkeypatch.setenv("LOCUST_SKIP_MONKEY_PATCH", "1")


@pytest.fixture
def users_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The number of users of a shape at each of some seconds, with 40 users and 100 s as the options."""
    from loadtests.traffic.lifecycle import Shape

    def users(shape: str, seconds: list[float]) -> list[int | None]:
        options = Namespace(
            shape=shape, num_users=40, run_time=100, shape_steps=4, shape_base=0.25, spike_share=0.2, shape_days=2
        )
        instance = Shape(options)
        found: list[int | None] = []
        for second in seconds:
            monkeypatch.setattr(instance, "get_run_time", lambda second=second: second)
            tick = instance.tick()
            found.append(None if tick is None else tick[0])
        return found

    return users


def test_steps_rise_to_all_users(users_at: Any) -> None:
    assert users_at("steps", [0, 24, 25, 50, 75, 99, 100]) == [10, 10, 20, 30, 40, 40, None]


def test_a_spike_comes_in_the_middle_and_goes(users_at: Any) -> None:
    assert users_at("spike", [0, 39, 41, 59, 61, 99, 100]) == [10, 10, 40, 40, 10, 10, None]


def test_a_soak_stays_up(users_at: Any) -> None:
    assert users_at("soak", [0, 2.5, 5, 50, 99, 100]) == [1, 20, 40, 40, 40, None]


def test_a_day_goes_from_night_to_noon_and_back(users_at: Any) -> None:
    assert users_at("diurnal", [0, 25, 50, 75, 100]) == [10, 40, 10, 40, None]


@pytest.mark.parametrize("shape", ["steps", "spike", "soak", "diurnal"])
def test_every_shape_ends_and_never_exceeds_the_users(users_at: Any, shape: str) -> None:
    found = users_at(shape, [tenth / 10 for tenth in range(1001)])
    assert found.pop() is None
    assert max(found) == 40
    assert min(found) >= 1


def test_a_failure_is_slower_than_any_answer() -> None:
    from loadtests.traffic.lifecycle import p95_ms

    assert p95_ms({10: 95}, 95) == 10
    assert p95_ms({10: 95}, 100) == 10
    assert p95_ms({10: 94, 500: 1}, 100) == 500
    assert p95_ms({10: 94}, 100) == math.inf


def total(answered: dict[float, int], failures: int) -> Any:
    requests = sum(answered.values()) + failures
    return Namespace(
        num_requests=requests, num_failures=failures, response_times=answered, fail_ratio=failures / max(requests, 1)
    )


@pytest.mark.parametrize(
    ("figures", "slo", "failure_rate", "reasons"),
    [
        (total({100: 100}, 0), 100.0, 0.0, []),
        (total({100: 100}, 0), 0.0, 0.0, []),
        (total({100: 100}, 0), 99.0, 0.0, ["p95 is 100 ms"]),
        (total({100: 99}, 1), 0.0, 0.0, ["1.00% of the requests failed"]),
        (total({100: 99}, 1), 100.0, 0.01, []),
        (total({1: 10}, 90), 100.0, 1.0, ["p95 is beyond measure"]),
        (total({}, 0), 0.0, 1.0, ["no request was made"]),
    ],
)
def test_what_was_not_kept_is_named(figures: Any, slo: float, failure_rate: float, reasons: list[str]) -> None:
    from loadtests.traffic.lifecycle import broken

    found = broken(figures, slo, failure_rate)
    assert len(found) == len(reasons)
    assert all(line.startswith(reason) for line, reason in zip(found, reasons, strict=True))
