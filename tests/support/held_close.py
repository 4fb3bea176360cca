"""The service, which before it stops listening says so and waits for a line: as on a busy machine."""

import socket
import sys

from service import __main__ as command
from service.server import DrainingServer


class Held(DrainingServer):
    """One that neither lets a client in nor shuts it out until then."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Blocks the event loop first."""
        sys.stdout.write("held\n")
        sys.stdout.flush()
        sys.stdin.readline()
        await super().shutdown(sockets)


if __name__ == "__main__":
    command.DrainingServer = Held  # type: ignore[attr-defined]
    sys.exit(command.main())
