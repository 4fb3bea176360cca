"""Who may call what, decided before anything of a request's body is read.

Open to everybody are the pages, the descriptions and what a monitor asks: :data:`OPEN`. Everything else
needs a key where there are keys, whether there is such an address or not, so that a route that is added
is closed until it is opened here.
"""

from ipaddress import ip_address
from typing import Final

from starlette.types import Scope

from service.addresses import counted
from service.context import Context
from service.errors import Forbidden, OtherSite, RateExceeded, Unauthenticated, UnknownHost
from service.keys import Key, Keyring, Role
from service.proxies import Networks, client_of
from service.rates import RateLimiter

OPEN: Final = frozenset(
    {
        "/",
        "/docs",
        "/openapi.json",
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/models",
    }
)
"""Addresses that anybody may read; none of them tells anything of an image or a patient."""

OPEN_FOLDER: Final = "/static/"

ADMIN_FOLDERS: Final = ("/models/", "/deliveries")
"""What is below them changes what the service does, or tells how."""

_PRIVATE: Final = (".localhost", ".internal")
"""Ends of names that nobody can register (RFC 6761; ICANN resolution 2024.07.29.06)."""

_OWN_SITES: Final = frozenset({b"same-origin", b"none"})
"""What ``Sec-Fetch-Site`` says where no page of another site sends a request."""

_READS: Final = frozenset({"GET", "HEAD"})
_BEARER: Final = b"bearer "


class Access:
    """Lets a request in or refuses it.

    Args:
        keys: None lets everybody do everything.
        rates: for each key, or for each address where there is no valid one; None does not limit them.
        hosts: names with a dot, in lower case, that it may be called by where there are no keys.
        proxies: those that say for which address a request is to count.
    """

    def __init__(
        self,
        keys: Keyring | None,
        rates: RateLimiter | None,
        hosts: frozenset[str],
        proxies: Networks,
    ) -> None:
        self._keys = keys
        self._rates = rates
        self._hosts = hosts
        self._proxies = proxies

    def check(self, scope: Scope, context: Context) -> None:
        """Refuses a request that may not be made; the key's name goes into the request's log line.

        Raises:
            Unauthenticated: it has no key, or none that is known.
            Forbidden: its key is for something else.
            OtherSite: nobody needs a key, and a page of another site sent it.
            UnknownHost: likewise, and a page may have made its own name mean the service's address.
            RateExceeded: its client asks too often.
        """
        if self._keys is None:
            # A browser sends no key by itself, but for any open page whatever needs none.
            _refuse_other_sites(scope)
        role = _needed(scope["method"], scope["path"])
        if role is None:
            return
        if self._keys is None:
            _refuse_other_names(scope, self._hosts)
            context.client = self._client(scope)
            self._count(context.client)
            return
        try:
            key = _authenticate(self._keys, scope["headers"])
        except Unauthenticated:
            # Who tries one key after the other is slowed down as well. A browser that asks whether a
            # page may send a key sends none itself (Fetch standard, CORS protocol).
            if scope["method"] != "OPTIONS" or _presented(scope["headers"]):
                self._count(self._client(scope))
            raise
        context.fields["key"] = context.client = key.name
        context.is_admin = Role.ADMIN in key.roles
        self._count(key.name)
        if role not in key.roles:
            raise Forbidden(f"this needs a key with the role {role.value!r}")

    def _client(self, scope: Scope) -> str:
        return counted(client_of(scope, self._proxies))

    def _count(self, client: str) -> None:
        if self._rates is not None and (wait_seconds := self._rates.take(client)):
            raise RateExceeded("too many requests", wait_seconds)


def _refuse_other_sites(scope: Scope) -> None:
    """Refuses what is no mere reading and comes from a page that is not of this service.

    Sources: W3C Fetch Metadata, 2.3; RFC 6454, 7. Clients that are no browsers send neither header.
    """
    if scope["method"] in _READS:
        return
    headers = dict(scope["headers"])
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is None and origin is not None:
        # Browsers leave it out over plain HTTP. What a proxy says in the place of `Host` counts from
        # anybody: no page can send it to another site, whose leave the browser asks first.
        hosts = headers.get(b"host"), headers.get(b"x-forwarded-host")
        is_other = origin.rpartition(b"//")[2].lower() not in {
            host and host.lower() for host in hosts
        }
    else:
        is_other = site is not None and site.lower() not in _OWN_SITES
    if is_other:
        raise OtherSite("a web page of another site sent this, and without API keys it may not")


def _refuse_other_names(scope: Scope, allowed: frozenset[str]) -> None:
    """Refuses a request to a name that anybody may have registered (DNS rebinding).

    To a browser, a page whose name comes to mean this service's address is a page of this service.
    Nobody can do that with an IP address, or with a name that is none of the public DNS.
    """
    host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode(
        "latin-1"
    )
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    name = name.lower().removesuffix(".")
    if "." not in name or name.endswith(_PRIVATE) or name in allowed or _is_address(name):
        return
    raise UnknownHost(
        "the service does not know the name that it is called by, and without API keys it has to: "
        "BRAIN_ALLOWED_HOSTS"
    )


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _authenticate(keys: Keyring, headers: list[tuple[bytes, bytes]]) -> Key:
    presented = _presented(headers)
    if not presented:
        raise Unauthenticated("this needs an API key: Authorization: Bearer KEY")
    if len(presented) > 1:
        raise Unauthenticated("there are several API keys in the request: send one")
    key = keys.find(presented[0])
    if key is None:
        raise Unauthenticated("the API key is not valid (X-API-Key counts before Authorization)")
    return key


def _presented(headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The keys that a request comes with.

    A token beside ``X-API-Key`` may be for a gateway before the service, and is none of its keys.
    """
    own = [value for name, value in headers if name == b"x-api-key"]
    return own or [
        value[len(_BEARER) :].strip()
        for name, value in headers
        if name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER
    ]


def _needed(method: str, path: str) -> Role | None:
    if method in _READS and (path in OPEN or path.startswith(OPEN_FOLDER)):
        return None
    return Role.ADMIN if path.startswith(ADMIN_FOLDERS) else Role.PREDICT
