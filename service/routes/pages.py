"""What browsers load: the page, the API documentation and their files, none of it from elsewhere."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

WEB: Final = Path(__file__).parent.parent / "web"
"""The files, served as they are below ``/static``."""

HEADERS: Final = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'self'",
            # Previews of the files that a user chose; icons in Swagger UI's style sheet.
            "img-src 'self' blob: data:",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Of every page: nothing runs that is not a file of this package, and nothing is loaded from
elsewhere, whatever a page might ever be tricked into showing."""


class WholeFile(FileResponse):
    """A file that is never sent in part, as nobody asks for it.

    Starlette refuses a range with a text of its own, and one of a unit that it does not know, which is
    to be ignored as every range may be (RFC 9110, section 14.2).
    """

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Says so as well."""
        super().init_headers({**(headers or {}), "Accept-Ranges": "none"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        headers = [field for field in scope["headers"] if field[0] != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


class Files(StaticFiles):
    """A folder of whole files."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """One of them, or that it has not changed."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        if isinstance(response, FileResponse):
            return WholeFile(full_path, status_code, stat_result=stat_result)
        return response


async def index(_request: Request) -> Response:
    """The page."""
    return _page("index.html")


async def docs(_request: Request) -> Response:
    """The API documentation; Swagger UI with its files in this package, so it works offline."""
    return _page("docs.html")


def _page(name: str) -> Response:
    path = WEB / name
    if not path.is_file():
        raise HTTPException(404)
    return WholeFile(path, media_type="text/html", headers=HEADERS)
