"""Locust's side of a run: the servers under test, what happens before and after the load, and the exit code."""

from __future__ import annotations

import itertools
import logging
import math
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gevent
import grpc.experimental.gevent
import locust.stats
from deepfake_client import DeadlineExceededError, DeepfakeClient, DeepfakeError, NotReadyError
from locust import LoadTestShape
from locust.env import Environment
from locust.event import Events
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import StatsEntry

from .answers import ask, cause_of, known_answers, wrong
from .loops import percentile
from .options import add_options, client_options, credentials, urls_for
from .pool import Item, Stream

_log = logging.getLogger("loadtests")

_LATE_SECONDS = 0.1
_PAUSE_SECONDS = 1.0
_DEFAULT_SECONDS = {"steps": 300.0, "spike": 300.0, "soak": 3600.0, "diurnal": 600.0}
# Locust's tick comes every second; over 100 users a second it warns that spawning is no longer even.
_MOST_SPAWNED_PER_SECOND = 100
_SOAK_RAMP = 0.05


class RequestFailedError(Exception):
    """What Locust's table of failures shows: the cause alone."""

    def __repr__(self) -> str:
        return str(self)


class Target:
    """A client for each URL, what it sends and what it knows of the answers; shared by all users of a class here.

    Raises:
        ValueError: the file of known answers cannot be used, or the replicas have different labels.
        DeepfakeError: the server does not answer.
    """

    def __init__(self, urls: Sequence[str], options: Namespace) -> None:
        grpc.experimental.gevent.init_gevent()  # in each process, before its first channel and after any fork
        arguments = client_options(options.payload, options.deadline_seconds, credentials(options))
        for url in urls if options.wait_ready_seconds else ():
            _wait_until_ready(url, arguments, options.wait_ready_seconds)
        self._clients = [DeepfakeClient(url, **arguments) for url in urls]
        self._turn = itertools.cycle(self._clients)
        self._tolerance = options.score_tolerance
        self._latest = 0.0
        self._told: set[str] = set()
        try:
            labels = {frozenset(client.model_info().labels) for client in self._clients}
            if len(labels) > 1:
                raise ValueError("the replicas serve models with different labels")
            file = Path(options.known_answers) if options.known_answers else None
            known = known_answers(self._clients[0], file, options.known_rate, options.payload)
        except (DeepfakeError, ValueError):
            self.close()
            raise
        self._labels = labels.pop()
        self.stream = Stream(options.payload, options.image_side, known, options.known_rate, options.repeat_rate)

    def send(self, item: Item) -> RequestFailedError | None:
        """Sends an image and judges the answer; the log has one example of each cause of failures."""
        try:
            verdict = ask(next(self._turn), item.payload)
        except DeepfakeError as error:
            cause, example = cause_of(error), str(error)
        else:
            found = wrong(verdict.scores, item.scores, self._labels, self._tolerance)
            if found is None:
                return None
            expected = dict(item.scores) if item.scores else f"scores of {sorted(self._labels)}"
            cause, example = found, f"{dict(verdict.scores)} in place of {expected}"
        if cause not in self._told:
            self._told.add(cause)
            _log.warning("%s, for the first time: %s", cause, example)
        return RequestFailedError(cause)

    def left(self, due: float) -> None:
        """Notes how late, by time.perf_counter(), a request leaves that was due then."""
        self._latest = max(self._latest, time.perf_counter() - due)

    def close(self) -> None:
        if self._latest > _LATE_SECONDS:
            late = "requests left up to %.0f ms late, which is in their latency; spread the users with --processes"
            _log.warning(late, self._latest * 1000)
        for client in self._clients:
            client.close()


def _wait_until_ready(url: str, arguments: dict[str, Any], seconds: float) -> None:
    """Returns when the server answers.

    Raises:
        NotReadyError: it still does not after so many seconds.
        DeepfakeError: at once, where waiting does not help: a certificate that is not trusted, for example.
    """
    _log.info("waiting for %s, %g s at most", url, seconds)
    deadline = time.monotonic() + seconds
    while True:
        # A client for each look: in one channel gRPC asks ever less often for a name that does not resolve.
        with DeepfakeClient(url, **arguments) as client:
            try:
                client.model_info()
                return
            except DeepfakeError as error:
                if not (error.retryable or isinstance(error, DeadlineExceededError)):
                    raise
                if time.monotonic() >= deadline:
                    raise NotReadyError(f"not ready after {seconds:g} s: {error}") from error
        time.sleep(_PAUSE_SECONDS)


def register(events: Events) -> None:
    # Locust's two digits would be a rounding of up to 5 % at a threshold.
    locust.stats.bucket_response_time = _three_digits
    events.init_command_line_parser.add_listener(add_options)
    events.init.add_listener(_init)
    events.test_start.add_listener(_test_start)
    events.test_stop.add_listener(_close_targets)
    events.quitting.add_listener(_quitting)


def _three_digits(milliseconds: float) -> int:
    return round(milliseconds) if milliseconds < 1000 else round(float(f"{milliseconds:.3g}"))


def _init(environment: Environment, **_: Any) -> None:
    """Before anything is sent: a wrong --host or file ends the program with 2, a server that does not answer with 1."""
    options, runner = environment.parsed_options, environment.runner
    # Requests on their way at the end get their answers: the slowest are among them.
    environment.stop_timeout = environment.stop_timeout or options.deadline_seconds
    if isinstance(runner, WorkerRunner):
        return  # the master decides for all
    try:
        if environment.host or options.headless:
            environment.user_classes[:] = _fitting(environment)
            credentials(options).check(environment.host.split(","))
    except ValueError as error:
        _exit(error, 2)
    if options.shape:
        environment.shape_class = Shape(options)
        environment.shape_class.runner = runner
    if options.headless:  # what targets ask beforehand is then no part of --run-time
        try:
            _open_targets(environment)
        except (ValueError, DeepfakeError) as error:
            if not isinstance(runner, MasterRunner):
                _exit(error, 1)
            environment.failed_beforehand = error  # told when all workers are connected, which then end as well
        gevent.sleep(0)  # the loop's clock stands since the imports began, and the run would be short by so much


def _exit(error: Exception, status: int) -> None:
    print(f"loadtest: {error}", file=sys.stderr)
    sys.exit(status)


def _fitting(environment: Environment) -> list[Any]:
    """Classes that --host has a URL for."""
    classes: list[Any] = environment.user_classes
    if fitting := [each for each in classes if urls_for(environment.host, each.schemes)]:
        return fitting
    raise ValueError(f"--host has no {classes[0].schemes[0]}:// URL, as {classes[0].__name__} needs")


def _test_start(environment: Environment, **_: Any) -> None:
    """In each process: open the targets, which asks the server, before the load."""
    runner = environment.runner
    try:
        if error := getattr(environment, "failed_beforehand", None):
            raise error
        if not isinstance(runner, WorkerRunner):
            _fitting(environment)  # the page may have another --host
        _open_targets(environment)
    except (ValueError, DeepfakeError) as error:
        _close_targets(environment)
        environment.events.user_error.fire(user_instance=None, exception=error, tb=None)  # fails the run
        if isinstance(runner, MasterRunner) and environment.parsed_options.headless:
            print(f"loadtest: {error}", file=sys.stderr)
            environment.process_exit_code = 1
            gevent.spawn(runner.quit)  # not from here: it is in the midst of its start


def _open_targets(environment: Environment) -> None:
    for each in environment.user_classes:
        urls = urls_for(environment.host, each.schemes)
        if urls and each.target is None:
            each.target = Target(urls, environment.parsed_options)


def _close_targets(environment: Environment, **_: Any) -> None:
    for each in environment.user_classes:
        if each.target is not None:
            each.target.close()
            each.target = None


def _quitting(environment: Environment, **_: Any) -> None:
    """The exit code, by the one process that has all figures."""
    options, runner, total = environment.parsed_options, environment.runner, environment.stats.total
    if isinstance(runner, WorkerRunner) or environment.process_exit_code is not None:
        return
    found = broken(total, options.slo_p95_ms, options.max_failure_rate)
    found += ["users raised exceptions, see above"] if runner.exceptions else []
    environment.process_exit_code = 1 if found else 0
    target = f" of at most {options.slo_p95_ms:.0f}" if options.slo_p95_ms else ""
    p95 = p95_ms(total.response_times, total.num_requests)
    kept = f"p95 {p95:.0f}{target} ms, {total.num_failures} of {total.num_requests} requests failed"
    print(f"loadtest: {'failed: ' + '; '.join(found) if found else 'passed: ' + kept}", file=sys.stderr)


def broken(total: StatsEntry, slo_p95_ms: float, max_failure_rate: float) -> list[str]:
    """The thresholds that a run did not keep, each in a few words; none when it passed."""
    if total.num_requests == 0:
        return ["no request was made"]
    found = []
    if total.fail_ratio > max_failure_rate:
        found.append(f"{total.fail_ratio:.2%} of the requests failed, over --max-failure-rate {max_failure_rate:.2%}")
    p95 = p95_ms(total.response_times, total.num_requests)
    if slo_p95_ms and p95 > slo_p95_ms:
        shown = f"{p95:.0f} ms" if math.isfinite(p95) else "beyond measure, since over 5 % of the requests failed"
        found.append(f"p95 is {shown}, over --slo-p95-ms {slo_p95_ms:.0f}")
    return found


def p95_ms(answered: Mapping[int, int], requests: int) -> float:
    """95th percentile of `requests` requests, of which so many were `answered` rightly after so many milliseconds.

    Those that failed are slower than any.
    """
    return percentile([ms for ms, times in answered.items() for _ in range(times)], requests, 0.95)


class Shape(LoadTestShape):
    """How the number of users changes over a run: steps, a spike, a soak, a day; `--users` is the top of each."""

    abstract = True  # a shape that Locust finds in the locustfile is used in every run
    use_common_options = True

    def __init__(self, options: Namespace) -> None:
        super().__init__()
        self._options = options

    def tick(self) -> tuple[int, float] | None:
        """(users, users spawned per second) for now, or None at the end."""
        top = self._options.num_users or 1
        progress = self.get_run_time() / float(self._options.run_time or _DEFAULT_SECONDS[self._options.shape])
        if progress >= 1:
            return None
        return max(1, round(top * self._share(progress))), float(min(top, _MOST_SPAWNED_PER_SECOND))

    def _share(self, progress: float) -> float:
        """Share of the users at `progress` (0 to 1) of the run."""
        options = self._options
        if options.shape == "steps":
            return (int(progress * options.shape_steps) + 1) / options.shape_steps
        if options.shape == "spike":
            return 1.0 if abs(progress - 0.5) * 2 < options.spike_share else options.shape_base
        if options.shape == "soak":
            return min(progress / _SOAK_RAMP, 1.0)
        night = (1 + math.cos(2 * math.pi * progress * options.shape_days)) / 2
        return 1 - (1 - options.shape_base) * night
