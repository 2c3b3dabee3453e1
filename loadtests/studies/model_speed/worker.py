"""A measuring process with an environment of its own: questions and answers are lines of JSON."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_LOADTESTS = Path(__file__).resolve().parents[3]
_START_SECONDS = 180.0


class Worker:
    """`python -m MODULE ARGUMENTS…` of this folder, as a context manager; ready once it has loaded its model.

    A process, because the allocator and OpenMP read their settings from the environment when they start.

    Raises:
        ChildProcessError: it ended, or did not answer in time; with the last line of its errors.
    """

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        paths = [str(_LOADTESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__, with the process
        self._name = module
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )

    def ask(self, timeout_seconds: float, **question: Any) -> dict[str, float]:
        """The answer to one question."""
        assert self._process.stdin is not None  # noqa: S101 - stdin=PIPE above
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
        except OSError:
            raise self._failure("ended") from None
        return self._receive(timeout_seconds)

    def __enter__(self) -> Worker:
        try:
            self._receive(_START_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _receive(self, timeout_seconds: float) -> dict[str, float]:
        assert self._process.stdout is not None  # noqa: S101 - stdout=PIPE above
        if not select.select([self._process.stdout], [], [], timeout_seconds)[0]:
            raise self._failure(f"did not answer within {timeout_seconds:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._failure("ended")
        answer: dict[str, float] = json.loads(line)
        return answer

    def _failure(self, how: str) -> ChildProcessError:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        return ChildProcessError(f"{self._name} {how}: {last}")


def answer_questions(answer: Callable[[dict[str, Any]], dict[str, float]]) -> None:
    """The other side: says that it is ready, then answers until its input ends."""
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
