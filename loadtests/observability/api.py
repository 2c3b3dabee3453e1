"""What Prometheus answers: series and alerts."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOOPBACK = "127.0.0.1"
_ANSWER_SECONDS = 10.0


class PrometheusError(Exception):
    """Prometheus cannot run or answer: one sentence that names the thing, the reason and the way out."""


@dataclass(frozen=True)
class Alert:
    """One alert that is pending or fires."""

    name: str
    severity: str
    firing: bool
    labels: Mapping[str, str]
    description: str


class PrometheusApi:
    """The HTTP API of a Prometheus on loopback.

    Args:
        port: where it listens.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        """http://host:port of its pages and its API."""
        return f"http://{LOOPBACK}:{self.port}"

    def graph(self, expression: str) -> str:
        """URL of a page that draws `expression` over the last quarter of an hour."""
        query = {"g0.expr": expression, "g0.tab": "0", "g0.range_input": "15m"}
        return f"{self.url}/graph?{urllib.parse.urlencode(query)}"

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return self._request("/-/ready")[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series that `expression` gives now; a scalar has no labels.

        Raises:
            PrometheusError: it refuses the expression or does not answer.
        """
        data = self._get("/api/v1/query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def query_range(
        self, expression: str, start: float, end: float, step_seconds: float
    ) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """Labels of each series, and its times (seconds since 1970) and values between `start` and `end`.

        Raises:
            PrometheusError: it refuses the expression or does not answer.
        """
        data = self._get(
            "/api/v1/query_range", query=expression, start=str(start), end=str(end), step=str(step_seconds)
        )
        return [
            (series["metric"], [(float(moment), float(value)) for moment, value in series["values"]])
            for series in data["result"]
        ]

    def alerts(self) -> list[Alert]:
        """The alerts that are pending or fire now.

        Raises:
            PrometheusError: it does not answer.
        """
        return [
            Alert(
                name=alert["labels"]["alertname"],
                severity=alert["labels"]["severity"],
                firing=alert["state"] == "firing",
                labels=alert["labels"],
                description=alert["annotations"]["description"],
            )
            for alert in self._get("/api/v1/alerts")["alerts"]
        ]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule as Prometheus describes it, with `name`, `health` and, where it failed, `lastError`.

        Raises:
            PrometheusError: it does not answer.
        """
        return [rule for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> Any:
        try:
            status, body = self._request(f"{path}?{urllib.parse.urlencode(parameters)}")
            answer = json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PrometheusError(f"prometheus at {self.url} does not answer ({error})") from None
        if status != http.client.OK:
            raise PrometheusError(f"prometheus refuses {parameters}: {answer.get('error', status)}")
        return answer["data"]

    def _request(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
