"""Requests that offer to go on in another protocol, which this service never does."""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class WithoutUpgrades(HttpToolsProtocol):
    """Uvicorn's protocol, which answers a request as if it offered no upgrade."""

    def feed(self, data: bytes) -> None:
        """Parses a piece of a request."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade as upgrade:
            if self.offers_upgrade():
                self._feed_without_upgrade(data[upgrade.args[0] :])

    def offers_upgrade(self) -> bool:
        """Whether a request could go on in another protocol; one to CONNECT has no body anyway."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _feed_without_upgrade(self, rest: bytes) -> None:
        """Parses a request as if it offered no upgrade, which may be ignored (RFC 9110, 7.8).

        The parser takes its body for the other protocol; Java's client offers HTTP/2 with each request.
        """
        version = self.parser.get_http_version().encode()
        lines = [b" ".join([self.parser.get_method(), self.url, b"HTTP/" + version])]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn does.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.feed(b"\r\n".join([*lines, b"", b""]) + rest)
