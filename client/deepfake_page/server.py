"""The page's port, and its orderly end."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

# For answers on their way.
_DRAIN_SECONDS = 5


class PortError(Exception):
    """The port cannot be bound; str() says why and what to do."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 picks a free one."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, dualstack_ipv6=family == socket.AF_INET6)
    except (OSError, UnicodeError) as error:
        reason = str(getattr(error, "strerror", None) or "no name of a machine").partition(" (while")[0]
        raise PortError(
            f"port {port} on {host} cannot be bound ({reason}); stop what listens there, or choose another with "
            "--port (0 picks a free one) or --host"
        ) from None


def is_loopback(listener: socket.socket) -> bool:
    """Whether nobody but this machine reaches it."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_until_stopped(app: ASGIApp, listener: socket.socket, end_streams: Callable[[], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; answers on their way get a few seconds, unless a second one follows."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    server = _Server(config)
    server.end_streams = end_streams
    signal.signal(signal.SIGHUP, server.handle_exit)
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    end_streams: Callable[[], None]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        """In place of uvicorn's, which raises the signal again after an orderly end."""
        self.force_exit = self.should_exit
        self.should_exit = True
        logging.getLogger("uvicorn.error").disabled = True  # it shows the frames of what is cut off
        self.end_streams()
