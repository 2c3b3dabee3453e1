"""Load on the classifier, over gRPC and HTTP, with Locust.

    locust -f loadtests/locustfile.py --headless -u 8 -t 30s --host grpc://127.0.0.1:8001 --slo-p95-ms 2000

`--host` takes several URLs, separated by commas: those of one protocol are replicas, taken in turn. Without the name of
a class, GrpcUser and HttpUser both run where there is a URL for them. README.md beside this file tells the rest.
"""

from __future__ import annotations

import time
from typing import ClassVar

from gevent.pool import Group
from locust import User, events, task
from locust.exception import StopUser

from loadtests.traffic.lifecycle import Target, register
from loadtests.traffic.loops import Schedule
from loadtests.traffic.options import GRPC_SCHEMES, HTTP_SCHEMES
from loadtests.traffic.pool import Item

register(events)


class ClassifyingUser(User):
    """Sends images: one after the other, or, with `--rate`, when they are due."""

    abstract = True
    protocol: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]]
    target: ClassVar[Target | None] = None

    def on_start(self) -> None:
        options = self.environment.parsed_options
        self._payload = options.payload
        self._on_their_way = Group()
        self._schedule = Schedule(options.rate, options.arrivals, time.perf_counter()) if options.rate else None

    def wait_time(self) -> float:
        return max(self._schedule.due - time.perf_counter(), 0.0) if self._schedule else 0.0

    @task
    def classify(self) -> None:
        if (target := self.target) is None:
            raise StopUser  # the server did not answer before the load, which fails the run
        item, schedule = target.stream.next(), self._schedule
        if schedule is None:
            self._send(target, item, time.perf_counter())
        elif time.perf_counter() >= schedule.due:  # the first one may not be due yet
            target.left(schedule.due)
            self._on_their_way.spawn(self._send, target, item, schedule.due)
            schedule.advance()

    def on_stop(self) -> None:
        self._on_their_way.join(timeout=self.environment.stop_timeout)
        self._on_their_way.kill()

    def _send(self, target: Target, item: Item, since: float) -> None:
        failed = target.send(item)
        self.environment.events.request.fire(
            request_type=self.protocol,
            name=f"{self._payload}, repeated" if item.repeated else self._payload,
            response_time=None if failed else (time.perf_counter() - since) * 1000,
            response_length=0,
            exception=failed,
            context={},
        )


class GrpcUser(ClassifyingUser):
    protocol = "gRPC"
    schemes = GRPC_SCHEMES


class HttpUser(ClassifyingUser):
    protocol = "HTTP"
    schemes = HTTP_SCHEMES
