"""A real nginx with ``deploy/nginx``'s configuration, on other ports and in a folder of its own."""

import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from scripts.ports import free_port
from tests.support.programs import found, needs
from tests.support.service import PATIENCE_SECONDS, ROOT, wait_until
from tests.support.tls import self_signed

CONFIGURATION = ROOT / "deploy" / "nginx" / "brain-mri.conf"

needs_nginx = needs("nginx")
"""Of Debian's package nginx-light."""

AROUND = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/around.log;
events {{}}
http {{
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/answers;
    access_log {folder}/around.log;
    gzip on;
    include {folder}/brain-mri.conf;
}}
"""
"""What Debian has around a server; it may be run by anybody."""


@dataclass(frozen=True)
class Nginx:
    """One that runs.

    Attributes:
        port: that it listens on, with TLS.
        folder: of its logs, and of what it would write of bodies and answers.
        certificate: its own authority's.
    """

    port: int
    folder: Path
    certificate: Path

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def context(self) -> ssl.SSLContext:
        """Of a client that knows it."""
        return ssl.create_default_context(cafile=self.certificate)

    def client(self, source: str = "127.0.0.1") -> httpx.Client:
        """A client that comes from an address of this machine."""
        transport = httpx.HTTPTransport(verify=self.context, local_address=source)
        return httpx.Client(base_url=self.url, transport=transport, timeout=PATIENCE_SECONDS)

    @contextmanager
    def connected(self) -> Iterator[ssl.SSLSocket]:
        """A connection for what no HTTP client would do; the kernel holds little of an answer."""
        with socket.socket() as plain:
            plain.settimeout(PATIENCE_SECONDS)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            plain.connect(("127.0.0.1", self.port))
            with self.context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                yield connection

    def written(self) -> tuple[int, ...]:
        """Changes with each file of a body or an answer that is made, though it is removed again."""
        places = (self.folder / "bodies", self.folder / "answers")
        return tuple(place.stat().st_mtime_ns for place in places)

    def log(self) -> str:
        """All that it has logged."""
        return "".join(path.read_text("utf-8") for path in self.folder.glob("*.log"))


@contextmanager
def nginx(folder: Path, behind: int, changes: Mapping[str, str] | None = None) -> Iterator[Nginx]:
    """Runs it in front of a port of this machine.

    Args:
        folder: for its files; new.
        behind: port of the service.
        changes: further ones to the configuration, old text to new.
    """
    folder.mkdir()
    certificate, key = self_signed(folder)
    running = Nginx(free_port(), folder, certificate)
    text = CONFIGURATION.read_text("utf-8")
    for old, new in {
        # The kernel holds little of an answer here as well.
        "listen 443 ssl;": f"listen 127.0.0.1:{running.port} ssl sndbuf=32k;",
        # Not every machine has it.
        "    listen [::]:443 ssl;\n": "",
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{behind};",
        "/etc/ssl/certs/brain-mri.pem": str(certificate),
        "/etc/ssl/private/brain-mri.key": str(key),
        "/var/log/nginx/": f"{folder}/",
        **(changes or {}),
    }.items():
        assert old in text, f"{CONFIGURATION.name} has no {old!r} any more"
        text = text.replace(old, new)
    (folder / "brain-mri.conf").write_text(text, "utf-8")
    around = folder / "nginx.conf"
    around.write_text(AROUND.format(folder=folder), "utf-8")
    program = found("nginx")
    assert program is not None, "nginx is not installed"
    with (
        (folder / "stderr").open("wb") as stderr,
        subprocess.Popen([program, "-c", str(around), "-p", str(folder)], stderr=stderr) as child,
    ):
        try:
            wait_until(lambda: child.poll() is not None or _listens(running.port))
            assert child.poll() is None, (folder / "stderr").read_text("utf-8")
            yield running
        finally:
            child.terminate()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
