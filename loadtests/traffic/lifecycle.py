"""What happens around a run: options are checked, targets opened, and the exit code decided."""

from __future__ import annotations

import sys
from typing import Any, Protocol, cast

import gevent
import locust.stats
from deepfake_client import DeepfakeError
from locust.env import Environment
from locust.event import Events
from locust.runners import MasterRunner, WorkerRunner

from .options import add_options, checked, urls_for
from .shapes import Shape
from .target import Target
from .thresholds import broken, kept

_REFUSED = "deepfake-refused"


class ClassifyingClass(Protocol):
    """A class of users, by its protocol."""

    __name__: str
    schemes: tuple[str, ...]
    target: Target | None


def register(events: Events) -> None:
    """Hooks everything here into Locust."""
    # Locust's two digits would be a rounding of up to 5 % at a threshold.
    locust.stats.bucket_response_time = _three_digits
    events.init_command_line_parser.add_listener(add_options)
    events.init.add_listener(_init)
    events.test_start.add_listener(_test_start)
    events.test_stop.add_listener(_test_stop)
    events.quitting.add_listener(_quitting)


def _three_digits(milliseconds: float) -> int:
    return round(milliseconds) if milliseconds < 1000 else round(float(f"{milliseconds:.3g}"))


def _init(environment: Environment, **_: Any) -> None:
    """Before anything is sent: wrong options end the program with 2."""
    options = environment.parsed_options
    assert options is not None  # noqa: S101 - Locust's command line always has them
    worker = isinstance(environment.runner, WorkerRunner)
    try:
        traffic = checked(options)
        if environment.host and not worker:
            environment.user_classes[:] = _fitting(environment, named=bool(options.user_classes))
            traffic.credentials.check(environment.host.split(","))
    except ValueError as error:
        if not worker:  # the master says it for all
            print(f"loadtest: {error}", file=sys.stderr)
        sys.exit(2)
    # Requests on their way at the end get their answers: the slowest are among them.
    if not environment.stop_timeout:
        environment.stop_timeout = traffic.deadline_seconds
    if options.shape and not worker:
        environment.shape_class = Shape(options)
        environment.shape_class.runner = environment.runner
    if isinstance(environment.runner, MasterRunner):
        environment.runner.register_message(_REFUSED, lambda environment, msg: _end(environment, msg.data["reason"]))
    elif options.headless and not worker:
        _open_before_the_clock(environment)


def _open_before_the_clock(environment: Environment) -> None:
    """In a run of one process, keep what the targets ask beforehand out of --run-time."""
    try:
        _open_targets(environment)
    except (ValueError, DeepfakeError) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        sys.exit(1)
    gevent.sleep(0)  # the loop's clock stands since the imports began, and the run time would be short by so much


def _fitting(environment: Environment, *, named: bool) -> list[Any]:
    """Classes that --host has a URL for; when the user named classes, all of them must have one."""
    classes = cast("list[ClassifyingClass]", environment.user_classes)
    fitting = [each for each in classes if urls_for(environment.host, each.schemes)]
    if not fitting or (named and len(fitting) < len(classes)):
        missing = next(each for each in classes if each not in fitting)
        raise ValueError(f"--host has no {missing.schemes[0]}:// URL, as {missing.__name__} needs")
    return fitting


def _test_start(environment: Environment, **_: Any) -> None:
    """In each process that has users: open the targets, which asks the server, before the load."""
    try:
        checked(cast("Any", environment.parsed_options))
        if not isinstance(environment.runner, WorkerRunner):
            _fitting(environment, named=True)
        if not isinstance(environment.runner, MasterRunner):
            _open_targets(environment)
    except (ValueError, DeepfakeError) as error:
        _close_targets(environment)
        _refuse(environment, str(error))


def _test_stop(environment: Environment, **_: Any) -> None:
    _close_targets(environment)


def _open_targets(environment: Environment) -> None:
    options = checked(cast("Any", environment.parsed_options))
    for each in cast("list[ClassifyingClass]", environment.user_classes):
        urls = urls_for(environment.host, each.schemes)
        if urls and each.target is None:
            each.target = Target(urls, options)


def _close_targets(environment: Environment) -> None:
    for each in cast("list[ClassifyingClass]", environment.user_classes):
        if each.target is not None:
            each.target.close()
            each.target = None


def _refuse(environment: Environment, reason: str) -> None:
    """Ends a run that cannot begin; a worker tells the master, which ends it for all."""
    if isinstance(environment.runner, WorkerRunner):
        environment.runner.send_message(_REFUSED, {"reason": reason})
    else:
        _end(environment, reason)


def _end(environment: Environment, reason: str) -> None:
    runner = environment.runner
    if runner is None or environment.process_exit_code is not None:
        return
    print(f"loadtest: {reason}", file=sys.stderr)
    headless = environment.parsed_options is not None and environment.parsed_options.headless
    if headless:
        environment.process_exit_code = 1
    # Not from here: the runner is in the midst of its start.
    gevent.spawn(runner.quit if headless else runner.stop)


def _quitting(environment: Environment, **_: Any) -> None:
    """The exit code, by the one process that has all figures."""
    options, runner = environment.parsed_options, environment.runner
    if (
        options is None
        or runner is None
        or isinstance(runner, WorkerRunner)
        or environment.process_exit_code is not None
    ):
        return
    found = broken(environment.stats.total, options.slo_p95_ms, options.max_failure_rate)
    found += ["users raised exceptions, see above"] if runner.exceptions else []
    environment.process_exit_code = 1 if found else 0
    verdict = f"failed: {'; '.join(found)}" if found else f"passed: {kept(environment.stats.total, options.slo_p95_ms)}"
    print(f"loadtest: {verdict}", file=sys.stderr)
