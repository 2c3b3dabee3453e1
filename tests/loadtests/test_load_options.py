"""Options of the locustfile that make no sense are refused by name."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
from deepfake_cli.credentials import CredentialFiles

from loadtests.capacity import __main__ as capacity
from loadtests.traffic.options import GRPC_SCHEMES, HTTP_SCHEMES, add_options, check_all, credentials, urls_for


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
    check_all(options)
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


def test_the_capacity_search_takes_them_for_a_server_that_is_named() -> None:
    options = capacity.parser().parse_args(["--tls-ca", "ca.pem", "--token-file", "t"])
    assert capacity.credentials(options) == CredentialFiles(Path("ca.pem"), token_file=Path("t"))
    with pytest.raises(ValueError, match="for a server that --url names"):
        capacity.check_all(options)
    with pytest.raises(ValueError, match=r"grpc://a:1: TLS files are for grpcs:// and https:// URLs"):
        capacity.check_all(capacity.parser().parse_args(["--tls-ca", "ca.pem", "--url", "grpc://a:1"]))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--repeat-rate", "1.1"], "--repeat-rate must be between 0 and 1, not 1.1"),
        (["--known-rate", "nan"], "--known-rate must be between 0 and 1, not nan"),
        (["--repeat-rate", "0.9", "--known-rate", "0.2"], "must not be more than 1 together"),
        (["--rate", "-1"], "--rate must be 0 or more"),
        (["--slo-p95-ms", "inf"], "--slo-p95-ms must be 0 or more"),
        (["--deadline-seconds", "0"], "--deadline-seconds must be above 0"),
        (["--shape-steps", "0"], "--shape-steps must be 1 or more"),
        (["--image-side", "300"], "multiple of 16, 512 at least, not 300"),
        (["--image-side", "520"], "multiple of 16, 512 at least, not 520"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(arguments: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_all(parsed(*arguments))


def test_each_protocol_takes_its_urls_from_the_host() -> None:
    host = "grpc://a:8001,http://b:8000,grpcs://c"
    assert urls_for(host, GRPC_SCHEMES) == ["grpc://a:8001", "grpcs://c"]
    assert urls_for(host, HTTP_SCHEMES) == ["http://b:8000"]
    assert urls_for(None, HTTP_SCHEMES) == []
