"""The command group, and how every command ends."""

from __future__ import annotations

import importlib
import signal
import sys
from typing import Any, NoReturn

import click

from .console import INTERRUPTED, fail, write_in_any_encoding

# Each command with the extras that it imports when called: `deepfake classify` must not wait for torch, nor need it.
_COMMANDS = {
    "calibrate": "evaluate",
    "classify": "cli",
    "demo": "export,serve",
    "evaluate": "evaluate",
    "export": "export",
    "page": "page",
    "serve": "serve",
}
_TERMINATED = 143


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(f"deepfake_cli.{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101 - what each of these modules defines
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            name = ctx.invoked_subcommand or ""
            fail(f"{name} needs {error.name}; pip install 'deepfake-vs-real[{_COMMANDS[name]}]'")


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="deepfake-vs-real", message="%(package)s %(version)s")
def deepfake() -> None:
    """Tell deepfakes from real photos with prithivMLmods/Deepfake-vs-Real-8000 on NVIDIA Triton."""


def run() -> NoReturn:
    """Run the command line; errors end in one line on stderr, and the exit code tells what happened."""
    write_in_any_encoding()
    # So that files half-written are removed as for Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        try:
            status = deepfake.main(standalone_mode=False)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # what cannot be written is told below, not by the interpreter's own end
    except click.ClickException as error:
        error.show(sys.stderr)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", status=INTERRUPTED)
    except BrokenPipeError:
        # `deepfake classify … | head`: the reader has what it wanted.
        sys.stdout = None  # or the interpreter flushes it again, complains, and exits with 120
        sys.exit(1)
    except OSError as error:
        # What is ours has been reported by the commands; this is stdout on a full disk, or a terminal that has gone.
        sys.stdout = None
        fail(f"cannot write the result: {error.strerror or error}")
    sys.exit(status if isinstance(status, int) else 0)
