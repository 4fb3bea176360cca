"""The PACS that gets the results: STOW-RS as its client (DICOM PS3.18 2024e, section 10.5)."""

import asyncio
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from service.pacs.related import new_boundary, related_body, related_type
from service.pacs.stow import MEDIA_TYPE
from service.release import RELEASE
from service.settings import Settings, SettingsError, unreadable

CONNECT_SECONDS: Final = 10.0

DUPLICATE: Final = 0x0111
"""Failure reason of an object that the destination has already (PS3.7 2024e, annex C.5)."""

PROCESSING_FAILURE: Final = 0x0110
"""Failure reason of an object for which none is given (PS3.7 2024e, annex C.5)."""

OUT_OF_RESOURCES: Final = range(0xA700, 0xA800)
"""Failure reasons that may pass (PS3.4 2024e, table B.2-1)."""

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
"""Of a larger answer the status counts alone; with a status of success it is no answer."""

PIECE_BYTES: Final = 64 * 1024
"""Of a body; each one that is taken shows that the destination is there. The system keeps twice as many
that are on their way, so that little is left of a body that seems to be sent."""

MAX_RETRY_AFTER: Final = 3600.0
"""A longer wait that a destination asks for is cut to this: it may be mistaken, and results wait."""

_OF_THE_DESTINATION: Final = frozenset({401, 403, 404, 405, 407, 408, 425, 429})
"""Refusals that say nothing of the object: wrong credentials or address, or too much at once. Somebody
mends that, and until then the results wait."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the destination made of the objects of one request.

    Attributes:
        delivered: SOP instance UIDs of those it has now.
        refused: those it will not take, with a word for why.
        later: those to send again, with a word for why.
        unreachable: nothing gets through to it at present, whatever the object.
        separate: the request as a whole was refused, and one object alone may be the reason.
        after_seconds: it wants to be left alone for so long.
    """

    delivered: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    later: dict[str, str] = field(default_factory=dict)
    unreachable: bool = False
    separate: bool = False
    after_seconds: float = 0.0


class Destination:
    """Sends objects. Event loop only.

    Args:
        settings: address, credentials, certificates, timeout.

    Raises:
        SettingsError: the file of certificates is of no use.
        PassingFault: its disk fails.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.dicomweb_url is None:
            raise SettingsError("BRAIN_DICOMWEB_URL is not set")
        self._url = f"{str(settings.dicomweb_url).rstrip('/')}/studies"
        headers = {
            "Accept": MEDIA_TYPE,
            # A few bytes may unpack to gigabytes.
            "Accept-Encoding": "identity",
            "User-Agent": f"brain-mri/{RELEASE}",
        }
        if settings.dicomweb_token is not None:
            headers["Authorization"] = f"Bearer {settings.dicomweb_token.get_secret_value()}"
        auth = None
        if settings.dicomweb_user is not None and settings.dicomweb_password is not None:
            password = settings.dicomweb_password.get_secret_value()
            auth = httpx.BasicAuth(settings.dicomweb_user, password)
        self._silent_seconds = seconds = settings.dicomweb_timeout_ms / 1000
        self._client = httpx.AsyncClient(
            headers=headers,
            auth=auth,
            transport=httpx.AsyncHTTPTransport(
                verify=_trust(settings),
                trust_env=False,
                socket_options=[(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE_BYTES)],
            ),
            timeout=httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
            # Neither a proxy nor a .netrc file that happens to be in the environment.
            trust_env=False,
        )

    async def send(self, objects: Mapping[str, bytes]) -> Verdict:
        """Sends objects in one request.

        Args:
            objects: SOP instance UID to DICOM file, at least one.
        """
        boundary = new_boundary()
        content = b"".join(related_body(boundary, objects.values()))
        headers = {"Content-Type": related_type(boundary), "Content-Length": str(len(content))}
        # One that is never silent for long may still not come to an end.
        seconds = 2 * self._silent_seconds
        try:
            async with asyncio.timeout(seconds) as limit:
                pieces = _pieces(content, limit, seconds)
                response = await self._answer(
                    self._client.build_request("POST", self._url, content=pieces, headers=headers)
                )
        except (TimeoutError, httpx.TimeoutException):
            return _unreachable(objects, "timeout")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError):
            return _unreachable(objects, "unreachable")
        if response is None:
            return _unreachable(objects, "answer_too_large")
        return judge(response, list(objects))

    async def _answer(self, request: httpx.Request) -> httpx.Response | None:
        """What was answered; None if that is too large, and the status does not say enough."""
        response = await self._client.send(request, stream=True)
        received = b""
        try:
            async for piece in response.aiter_raw():
                received += piece
                if len(received) > MAX_ANSWER_BYTES:
                    break
        finally:
            await response.aclose()
        content = _unpacked(received, response.headers.get("content-encoding", "identity"))
        if content is None:
            if response.is_success:
                return None
            content = b""
        # Without the header that says how the content was compressed.
        headers = {"Retry-After": response.headers.get("retry-after", "")}
        return httpx.Response(response.status_code, headers=headers, content=content)

    async def close(self) -> None:
        """Ends the connections."""
        await self._client.aclose()


async def _pieces(content: bytes, limit: asyncio.Timeout, seconds: float) -> AsyncIterator[bytes]:
    """A body, of which each piece that is taken sets a limit of time anew: the link may be slow."""
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]
        limit.reschedule(asyncio.get_running_loop().time() + seconds)


def _unpacked(content: bytes, coding: str) -> bytes | None:
    """What was answered; None if that is too large, or not packed as some servers do unasked."""
    if len(content) > MAX_ANSWER_BYTES or coding not in {"identity", "gzip"}:
        return None
    if coding == "identity":
        return content
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = inflater.decompress(content, MAX_ANSWER_BYTES)
    except zlib.error:
        return None
    return plain if inflater.eof else None


def judge(response: httpx.Response, sops: Sequence[str]) -> Verdict:
    """What an answer means for the objects that were sent.

    Args:
        response: the answer.
        sops: their SOP instance UIDs.
    """
    status = response.status_code
    failures, stored, others = _content(response)
    if response.is_success or (status == httpx.codes.CONFLICT and (failures or others)):
        delivered, refused, later = [], {}, {}
        separate = False
        for sop in sops:
            code = failures.get(sop)
            if code is None and sop not in stored and (stored or others):
                # Alone, what the answer is about can be no other, by whatever UID it is kept.
                if len(sops) > 1:
                    separate = True
                    continue
                code = others[0] if others else None
            if code is None or code == DUPLICATE:
                delivered.append(sop)
            elif code in OUT_OF_RESOURCES:
                later[sop] = "out_of_resources"
            else:
                refused[sop] = f"refused_{code:04x}"
        return Verdict(delivered, refused, later, separate=separate)
    reason = f"http_{status}"
    if status in _OF_THE_DESTINATION or not response.is_client_error:
        after_seconds = _retry_after(response)
        return Verdict(
            later=dict.fromkeys(sops, reason), unreachable=True, after_seconds=after_seconds
        )
    if len(sops) > 1:
        return Verdict(separate=True)
    return Verdict(refused=dict.fromkeys(sops, reason))


def _unreachable(sops: Mapping[str, bytes], reason: str) -> Verdict:
    return Verdict(later=dict.fromkeys(sops, reason), unreachable=True)


def _content(response: httpx.Response) -> tuple[dict[str, int], set[str], list[int]]:
    """What the answer says, as far as it is in the DICOM JSON model.

    Returns:
        Of the Failed SOP Sequence (0008,1198) SOP instance UID to failure reason, the UIDs of the
        Referenced SOP Sequence (0008,1199), and the reasons of the Other Failures Sequence
        (0008,119A), which names no objects.
    """
    try:
        content = response.json()
    except ValueError:
        return {}, set(), []
    failures = {
        uid: _reason(item)
        for item in _items(content, "00081198")
        if (uid := _uid(item)) is not None
    }
    stored = {uid for item in _items(content, "00081199") if (uid := _uid(item)) is not None}
    return failures, stored, [_reason(item) for item in _items(content, "0008119A")]


def _items(content: Any, tag: str) -> list[Any]:
    try:
        return list(content[tag]["Value"])
    except (KeyError, TypeError, IndexError):
        return []


def _uid(item: Any) -> str | None:
    try:
        return str(item["00081155"]["Value"][0])
    except (KeyError, TypeError, IndexError):
        return None


def _reason(item: Any) -> int:
    try:
        return int(item["00081197"]["Value"][0])
    except (KeyError, TypeError, IndexError, ValueError):
        return PROCESSING_FAILURE


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), MAX_RETRY_AFTER) if text.isdecimal() else 0.0


def _trust(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.dicomweb_ca_file)
    except ssl.SSLError as error:
        raise SettingsError("BRAIN_DICOMWEB_CA_FILE: it holds no certificates") from error
    except OSError as error:
        raise unreadable("BRAIN_DICOMWEB_CA_FILE: it cannot be read", error) from error
    return context
