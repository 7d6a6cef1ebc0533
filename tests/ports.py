"""Ports for servers of the tests and of the bench."""

import socket
from collections import deque

_HELD: deque[socket.socket] = deque()
_HELD_MAX = 256


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody else is given by chance: as long as they are held, until many more
    were asked for, only a server that names one can listen there.
    """
    while len(_HELD) > _HELD_MAX:
        _HELD.popleft().close()
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind(("127.0.0.1", 0))
    _HELD.extend(held)
    return [each.getsockname()[1] for each in held]
