"""Becomes the program that it is given, which the kernel then ends together with the process that started it.

    python -I -S end_with_parent.py PARENT_PID PROGRAM [ARGUMENT…]

A program of its own, because what `subprocess` offers for this, `preexec_fn`, runs Python between fork and exec: in a
process that has threads and gRPC at work, that was seen to end in segmentation faults.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def ending_with_this_process(command: Sequence[str]) -> list[str]:
    """`command`, to be started with subprocess from a thread that outlives it: should this process be killed outright, the
    kernel ends the program with it."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main() -> None:
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(f"{command[0]}: not started, since the process that wanted it has ended")
    os.execv(command[0], command)  # noqa: S606 - that is its purpose


if __name__ == "__main__":
    main()
