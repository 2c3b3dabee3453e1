"""Helps a stopping server to part from its HTTP callers.

Triton's HTTP server, told to stop, first waits for every connection to close, idle ones too, and goes on serving
what comes in over them. A caller that keeps its connection alive so uses up the whole drain, and at the end of it has
a request cut (server http_server.cc, main.cc). Closing the reading half of those connections ends that: an idle one
closes at once, a busy one after its answer, since Triton does not read from a connection while it owes it an answer.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from pathlib import Path

_PIDFD_GETFD = 438  # x86-64 and every newer architecture; Linux 5.6
_LAST_DATA_RECEIVED = 52  # offset of tcpi_last_data_recv, milliseconds, in linux/tcp.h's struct tcp_info


def refuse_further_requests(pid: int, port: int, quiet_milliseconds: int) -> None:
    """Close the reading half of the TCP connections that process `pid` accepted on `port` and that lie quiet.

    Quiet is one over which nothing came in for `quiet_milliseconds`: it is idle, or its caller waits for an answer,
    but a request is not being sent over it just now.

    Where the kernel does not allow one process to take another's descriptors nothing happens, and the drain lasts as
    long as the callers keep their connections.
    """
    try:
        server = os.pidfd_open(pid)
        descriptors = [int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return
    system_call = ctypes.CDLL(None).syscall
    try:
        for descriptor in descriptors:
            copy = system_call(_PIDFD_GETFD, server, descriptor, 0)
            if copy >= 0:
                _close_reading_half(copy, port, quiet_milliseconds)
    finally:
        os.close(server)


def _close_reading_half(descriptor: int, port: int, quiet_milliseconds: int) -> None:
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)  # a file or a pipe
        return
    with connection:
        try:
            if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getsockname()[1] == port:
                connection.getpeername()  # the listening socket has no peer and raises; it is Triton's own to close
                information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
                if struct.unpack_from("=I", information, _LAST_DATA_RECEIVED)[0] >= quiet_milliseconds:
                    connection.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # that, or a connection that has just gone
