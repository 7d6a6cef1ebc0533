"""A way to the database that can be cut in the moment of a commit, or be narrow."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Literal

from pymysql.constants import CLIENT

Cut = Literal["before", "after", "denied"]
HEADER = 4
"""Bytes of a packet's length and number."""
ERROR_DURING_COMMIT = 1180
"""What a node says that loses its cluster in the moment of a commit."""


class Proxy:
    """Passes bytes on, and cuts connections that carry a COMMIT while it is told to.

    A narrow one lets no client ask for several statements in one packet, so that the server refuses
    them, as TiDB does by itself.
    """

    def __init__(self, port: int, *, narrow: bool = False) -> None:
        self._target, self._narrow = ("127.0.0.1", port), narrow
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._cuts: list[Cut] = []
        self._sockets: list[socket.socket] = []
        self._silent = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *cuts: Cut) -> None:
        """Cuts the next commits, one each: before the server sees it, or after it was done, which
        may be denied.
        """
        self._cuts = list(cuts)

    def fall_silent(self) -> None:
        """Cuts every connection, and takes new ones without ever answering."""
        self._silent = True
        for one in self._sockets:
            _shut(one)

    def close(self) -> None:
        """Closes everything."""
        for one in (self._listener, *self._sockets):
            _shut(one)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._silent:
                    self._sockets.append(client)
                    continue
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for ends in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, asking: bool) -> None:
        first = asking and self._narrow
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if first:
                    data, first = _modest(data), False
                if asking and data.endswith(b"COMMIT") and self._cuts:
                    cut = self._cuts.pop(0)
                    if cut == "denied":
                        source.sendall(_error(ERROR_DURING_COMMIT))
                    if cut != "before":
                        _do_alone(data, sink, source)
                    break
                sink.sendall(data)
        _shut(source)
        _shut(sink)


def _modest(hello: bytes) -> bytes:
    """Takes the wish for MULTI_STATEMENTS out of the capabilities that a client's first packet
    begins with.
    """
    (wishes,) = struct.unpack_from("<I", hello, HEADER)
    kept = struct.pack("<I", wishes & ~CLIENT.MULTI_STATEMENTS)
    return hello[:HEADER] + kept + hello[HEADER + len(kept) :]


def _error(code: int) -> bytes:
    """Returns the packet by which a server answers a client's first with an error."""
    told = b"\xff" + struct.pack("<H", code) + b"#HY000Error during COMMIT"
    return len(told).to_bytes(3, "little") + b"\x01" + told


def _do_alone(data: bytes, server: socket.socket, client: socket.socket) -> None:
    """Lets the server do it with nobody left to hear the answer."""
    client.shutdown(socket.SHUT_RDWR)
    server.sendall(data)
    server.shutdown(socket.SHUT_WR)  # the server reads the commit, then the end
    threading.Event().wait(0.2)


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def proxied(port: int, *, narrow: bool = False) -> Iterator[Proxy]:
    """Gives a way to a port of this machine."""
    with closing(Proxy(port, narrow=narrow)) as proxy:
        yield proxy
