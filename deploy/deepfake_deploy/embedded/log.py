"""What the embedded server writes to its log: kept short for errors, passed on when asked for."""

from __future__ import annotations

import re
import threading
from collections import deque
from typing import IO

_LOAD_FAILURE = re.compile(r"failed to load '([^']+)' version (\d+): (.*)")
_ERROR = re.compile(r"E\d{4} [^\]]*\] ?")
# Written at every orderly stop, and at every start, or start of an ensemble, without a GPU.
_EXPECTED = re.compile(
    r"Signal \(\d+\) received\.|.*unable to create stream for .*CUDA driver version is insufficient"
    r"|.*CudaDriverHelper has not been initialized"
)


class LogReader:
    """Reads the server's output in a thread, so that its pipe never fills.

    Args:
        stream: the server's combined stdout and stderr.
        target: where lines are passed on to, once `passing` is true. Until then they are only kept, so that a failed
            start is told in one sentence.
    """

    KEPT_LINES = 200  # enough to hold a traceback of the stub; bounds the memory of a server that runs for months

    def __init__(self, stream: IO[str], target: IO[str], *, passing: bool) -> None:
        self.passing = passing
        self._lines: deque[str] = deque(maxlen=self.KEPT_LINES)
        self._target = target
        self._thread = threading.Thread(target=self._read, args=(stream,), name="triton-log", daemon=True)
        self._thread.start()

    def join(self, timeout_seconds: float) -> None:
        """Wait for the end of the stream."""
        self._thread.join(timeout_seconds)

    def failure(self) -> str | None:
        """In one line the first model that did not load, else the last error."""
        lines = [line for line in self._lines.copy() if not _EXPECTED.match(line)]  # the thread may still write to it
        for match in filter(None, map(_LOAD_FAILURE.search, lines)):
            # The server escapes the line ends of what a stub raised; a traceback follows after the first ones.
            reason = match[3].split("\\n", 1)[0].strip('"; ')
            return f"a model did not load: {match[1]} version {match[2]}: {reason}"
        errors = [line for line in lines if _ERROR.match(line)]
        return _ERROR.sub("", errors[-1]).strip(' \n"') if errors else None

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.append(line.rstrip("\n"))
            if self.passing and not _EXPECTED.match(line):
                try:
                    self._target.write(line)
                    self._target.flush()
                except (OSError, ValueError):
                    # Whoever read our stderr has gone; the server must not stop for want of a reader.
                    self.passing = False
