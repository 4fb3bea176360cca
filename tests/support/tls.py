"""TLS in front of a service, as a site puts it there, with a certificate of its own authority."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PIECE_BYTES = 1 << 16


@dataclass
class Front:
    """What TLS lets through.

    Attributes:
        port: on which it listens.
        opened: connections whose client has taken the certificate.
        refused: those whose client has not.
    """

    port: int = 0
    opened: int = 0
    refused: int = 0


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that is its own authority, and its key."""
    certificate, key = folder / "front.pem", folder / "front.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-noenc", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@contextmanager
def tls_front(behind: int, certificate: Path, key: Path) -> Iterator[Front]:
    """Listens with TLS and hands what comes to a port of this machine."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    front = Front()
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Without TLS so far: a handshake that fails is seen here, and nowhere else.
        try:
            await writer.start_tls(context)
        except (OSError, ssl.SSLError):
            front.refused += 1
            writer.transport.abort()
            return
        front.opened += 1
        with suppress(OSError):
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", behind)
            try:
                pumps = [_pump(reader, there_writer), _pump(there_reader, writer)]
                tasks = [asyncio.ensure_future(pump) for pump in pumps]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                there_writer.close()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(one, "127.0.0.1", 0)
        front.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await stop.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def work() -> None:
        loop.run_until_complete(run())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    try:
        yield front
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await source.read(PIECE_BYTES):
            target.write(piece)
            await target.drain()
