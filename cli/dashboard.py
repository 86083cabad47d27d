"""`dray dashboard`: a link with a token, which was tried before it is given."""

import http.client
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from cli import http as wire
from cli import proof, show
from cli.account import made_token
from cli.addresses import addresses
from cli.defaults import LOOPBACK_GATEWAY
from cli.errors import RefusedError, UnreachableError, UsageError
from cli.gateway import Gateway
from cli.listening import strangers_at
from cli.output import complain

_LOOK_SECONDS: Final = 5.0


def dashboard(
    gateway: Gateway, urls: str, at: str | None, scope: str | None, expires: str, *, json: bool
) -> int:
    base = _base(urls, at)
    scopes = gateway.call("GET", "/whoami").body.get("scopes", ())
    made = made_token(gateway, [scope or ("admin" if "admin" in scopes else "read")], None, expires)
    problem = _not_taken(base, made.token)
    if problem is not None:
        if at is None:
            raise UnreachableError(
                f"the gateway is not at {base} ({problem}): say with --at where browsers find it"
            )
        complain(f"from here, {base} was not reached ({problem}); browsers may be luckier")
    link = f"{base}/#token={made.token}"
    if json:
        show.document({"url": link, "expires_at": made.ends.isoformat()})
    else:
        print(show.plain(link))
        complain(show.plain(made.about))
    return 0


def _base(urls: str, at: str | None) -> str:
    """Where a browser is sent."""
    base = addresses(at or urls)[0].name
    if base.startswith("unix:"):
        if at is not None:
            raise UsageError("--at: browsers need an address that begins with https:// or http://")
        return _usual(Path(unquote(urlsplit(base).path)))
    parts = urlsplit(base)
    host, port = parts.hostname or "", parts.port or 80
    if parts.scheme == "http" and not proof.loopback(host):
        raise UsageError(
            f"the token would travel to {host} readable for everybody on the way: name an address "
            "that begins with https:// with --at, or bring the gateway's port to your machine: "
            f"ssh -L {port}:127.0.0.1:{port} {host} dray dashboard --at http://127.0.0.1:{port}"
        )
    return base


def _usual(served: Path) -> str:
    """Where the gateway of this socket is for browsers, unless the site says otherwise."""
    port = urlsplit(LOOPBACK_GATEWAY).port or 80
    if strangers_at(port, served):
        raise UsageError(
            f"at port {port} of this machine listens somebody else than the gateway, who would "
            "get the token: say with --at where browsers find the gateway"
        )
    return LOOPBACK_GATEWAY


def _not_taken(base: str, token: str) -> str | None:
    """Why the gateway there does not know the token; None: it does."""
    [address] = addresses(base)
    headers = {"Authorization": f"Bearer {token}"}
    try:
        wire.call(address.connect, "GET", "/api/v1/whoami", None, _LOOK_SECONDS, headers)
    except RefusedError as exc:
        return exc.message
    except (OSError, http.client.HTTPException) as exc:
        return str(exc) or type(exc).__name__
    return None
