"""Ports for servers that are started, stopped and started again, which nobody else on the machine is given meanwhile."""

import socket

_held = []


def reserve_port():
    """A free port of the loopback address, kept until this process ends.

    A port that was merely seen to be free may be given away before the server takes it, and again while the server is down.
    So a socket stays bound to it without listening: the system gives the port to nobody of its own accord, and a server may still
    bind it, since both sides say SO_REUSEADDR.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _held.append(holder)
    return holder.getsockname()[1]
