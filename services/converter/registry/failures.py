"""Turns what aiohttp and the network raise into errors that tell the user what to do."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from yarl import URL

from services.converter.registry.errors import (
    RegistryConnectionLostError,
    RegistryError,
    RegistryProtocolError,
    RegistryTimeoutError,
    RegistryTlsError,
    RegistryUnknownHostError,
    RegistryUnreachableError,
)

_NO_WAY_OUT = (
    "may have no DNS, or no way out but through a proxy: set HTTPS_PROXY for it, or proxy for this "
    "registry"
)
_PROXY_WANTS_LOGIN = 407
# OpenSSL's reasons to distrust a certificate: who signed it, and whose it is.
_UNKNOWN_SIGNER = frozenset({18, 19, 20, 21})
_OTHER_NAME = frozenset({62, 64})

_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


@contextmanager
def translated(url: URL, proxy: URL | None = None) -> Iterator[None]:
    """Errors of the body become registry errors. Only the host is named: paths may be signed."""
    where = url.host if url.explicit_port is None else f"{url.host}:{url.port}"
    by = f"the proxy {proxy.host}:{proxy.port}" if proxy is not None else ""
    try:
        yield
    except aiohttp.ClientHttpProxyError as exc:
        raise RegistryUnreachableError(_not_let_through(where, by, exc.status)) from None
    except aiohttp.ClientProxyConnectionError as exc:
        raise RegistryUnreachableError(
            f"nothing answers at {by}, which leads to {where} "
            f"({exc.os_error.strerror or 'no connection'}): the operator must look at it, and at "
            "HTTPS_PROXY and this registry's proxy"
        ) from exc
    except (aiohttp.InvalidURL, aiohttp.ClientResponseError):
        # Their text holds the whole address, and addresses of blob stores are secrets for a while.
        raise RegistryProtocolError(_not_http(where)) from None
    except aiohttp.ClientError as exc:
        if _refuses_ours(exc):
            raise RegistryTlsError(
                f"{where} wants to see a certificate that it knows before it answers: the operator "
                "must set cert_file and key_file for this registry"
            ) from exc
        raise _error(where, exc) from exc
    except OSError as exc:
        raise RegistryConnectionLostError(f"the connection to {where} broke: {exc}") from exc


def _error(where: str | None, exc: aiohttp.ClientError) -> RegistryError:
    match exc:
        case aiohttp.ClientConnectorCertificateError():
            return RegistryTlsError(_untrusted(where, exc.certificate_error))
        case aiohttp.ClientSSLError():
            return RegistryTlsError(
                f"{where} does not speak TLS as it should: if it serves plain http, "
                "set insecure for this registry"
            )
        case aiohttp.ClientConnectorDNSError():
            if exc.os_error.errno in _NO_SUCH_NAME:
                return RegistryUnknownHostError(
                    f"the host {where} is not found: check how the registry's name is spelt; if it "
                    f"is right, the converter's machine {_NO_WAY_OUT}"
                )
            return RegistryUnreachableError(
                f"the name {where} cannot be looked up now: try again; if it stays so, the "
                f"converter's machine {_NO_WAY_OUT}"
            )
        case aiohttp.ServerTimeoutError():
            return RegistryTimeoutError(f"{where} stayed silent for too long: try again later")
        case aiohttp.ClientConnectorError():
            return RegistryUnreachableError(
                f"nothing answers at {where} ({exc.os_error.strerror or 'no connection'}): "
                "check the registry's host and port, and that it is running"
            )
        case aiohttp.ClientPayloadError() | aiohttp.ClientConnectionError():
            return RegistryConnectionLostError(
                f"{where} broke off the connection in the middle of an answer: try again"
            )
    return RegistryProtocolError(_not_http(where))


def _refuses_ours(exc: aiohttp.ClientError) -> bool:
    """What a server says of our certificate, or that there is none, comes as an alert of TLS."""
    cause = exc.__cause__
    reason = cause.reason if isinstance(cause, ssl.SSLError) else None
    return reason is not None and "ALERT" in reason and "CERTIFICATE" in reason


def _not_let_through(where: str | None, by: str, status: int) -> str:
    if status == _PROXY_WANTS_LOGIN:
        return (
            f"{by} wants a user name and password before it leads to {where}: the operator must "
            "write them into its address, http://USER:PASSWORD@HOST:PORT"
        )
    return (
        f"{by} does not lead to {where}, but answers {status}: the operator must allow this host "
        "there, or have it asked directly (NO_PROXY, or proxy: direct for this registry)"
    )


def _not_http(where: str | None) -> str:
    return (
        f"{where} does not answer as an HTTP server does: "
        "check the registry's host and port, and its insecure setting"
    )


def _untrusted(where: str | None, exc: Exception) -> str:
    if not isinstance(exc, ssl.SSLCertVerificationError):
        return f"the certificate of {where} cannot be verified ({type(exc).__name__})"
    if exc.verify_code in _OTHER_NAME:
        return (
            f"the certificate of {where} is for another host ({exc.verify_message}): "
            "use the name that it is for, or have it issued for this one"
        )
    if exc.verify_code in _UNKNOWN_SIGNER:
        advice = "if it is signed by your site's own authority, set ca_file for this registry"
    else:
        advice = "tell the registry's administrator, and check this machine's clock"
    return f"the certificate of {where} is not trusted ({exc.verify_message}): {advice}"
