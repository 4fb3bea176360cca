"""A slow network between a client and a service: what is sent up comes at a rate."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from time import sleep

PIECE_BYTES = 4096


@contextmanager
def relay(port: int, bytes_per_second: float) -> Iterator[int]:
    """Passes on what comes to a port of its own, which it yields; what comes back is not slowed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=_accept, args=(server, port, bytes_per_second), daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            # Closing it alone would not wake who waits for a connection.
            server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket, port: int, rate: float) -> None:
    with suppress(OSError):
        while True:
            client, _ = server.accept()
            Thread(target=_connect, args=(client, port, rate), daemon=True).start()


def _connect(client: socket.socket, port: int, rate: float) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as service:
        back = Thread(target=_pass_on, args=(service, client, 0.0), daemon=True)
        back.start()
        _pass_on(client, service, 1 / rate)
        back.join()


def _pass_on(source: socket.socket, sink: socket.socket, pause: float) -> None:
    """Ends when either side does, and then ends the other one."""
    with suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            sink.sendall(piece)
            sleep(len(piece) * pause)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
    with suppress(OSError):
        source.shutdown(socket.SHUT_RD)
