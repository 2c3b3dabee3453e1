"""Programs that the kernel ends together with the process that started them."""

from __future__ import annotations

from collections.abc import Sequence


def ending_with_this_process(command: Sequence[str]) -> list[str]:
    """`command`, to be started with subprocess from a thread that outlives it: should this process be killed outright,
    the kernel ends the program with it.

    By util-linux's `setpriv`. What `subprocess` has for this, `preexec_fn`, runs Python between fork and exec: where
    threads and gRPC were at work, that ended in segmentation faults.
    """
    return ["setpriv", "--pdeathsig", "TERM", "--", *command]
