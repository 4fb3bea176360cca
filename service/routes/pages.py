"""What browsers load: the page, the API documentation and their files, none of it from elsewhere."""

from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

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
    return FileResponse(path, media_type="text/html", headers=HEADERS)
