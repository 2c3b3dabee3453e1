"""What the embedded server writes to its log: kept short for errors, passed on when asked for."""

from __future__ import annotations

import re
import threading
from collections import deque
from typing import IO

_LOAD_FAILURE = re.compile(r"failed to load '(?P<model>[^']+)' version (?P<version>\d+): (?P<reason>.*)")
# Written at every orderly stop, and at every start, or start of an ensemble, without a GPU.
_EXPECTED = re.compile(
    r"Signal \(\d+\) received\.|.*unable to create stream for .*CUDA driver version is insufficient"
    r"|.*CudaDriverHelper has not been initialized"
)
_FIRST_LINE_PREFIX = re.compile(r"^[EWI]\d{4} [^\]]*\] ?")


class LogReader:
    """Reads the server's output in a thread, so that its pipe never fills.

    Args:
        stream: the server's combined stdout and stderr.
        target: where lines are passed on to.
        passing: pass lines on from the start. Otherwise they are only kept until `pass_on()`, so that a failed start
            is told in one sentence.
    """

    KEPT_LINES = 200  # enough to hold a traceback of the stub; bounds the memory of a server that runs for months

    def __init__(self, stream: IO[str], target: IO[str], *, passing: bool) -> None:
        self._lines: deque[str] = deque(maxlen=self.KEPT_LINES)
        self._target = target
        self._passing = passing
        self._thread = threading.Thread(target=self._read, args=(stream,), name="triton-log", daemon=True)
        self._thread.start()

    def pass_on(self) -> None:
        """Pass on every line from here, since a quiet server only writes what somebody should see."""
        self._passing = True

    def join(self, timeout_seconds: float) -> None:
        """Wait for the end of the stream."""
        self._thread.join(timeout_seconds)

    def load_failure(self) -> str | None:
        """«model: reason» of the first model that did not load, in one line."""
        for line in self._lines.copy():  # the thread may still write to it
            if match := _LOAD_FAILURE.search(line):
                # The server escapes the line ends of what a stub raised; a traceback follows after the first ones.
                reason = match["reason"].split("\\n", 1)[0].strip('"; ')
                return f"{match['model']} version {match['version']}: {reason}"
        return None

    def last_error(self) -> str | None:
        """The last line that the server marked as an error."""
        lines = self._lines.copy()
        errors = [line for line in lines if re.match(r"E\d{4} ", line) and not _EXPECTED.match(line)]
        return _FIRST_LINE_PREFIX.sub("", errors[-1]).strip(' \n"') if errors else None

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.append(line.rstrip("\n"))
            if self._passing and not _EXPECTED.match(line):
                try:
                    self._target.write(line)
                    self._target.flush()
                except (OSError, ValueError):
                    # Whoever read our stderr has gone; the server must not stop for want of a reader.
                    self._passing = False
