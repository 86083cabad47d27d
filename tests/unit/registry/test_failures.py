"""What a user reads of a network's errors."""

import socket
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from services.converter.registry import errors
from services.converter.registry.failures import translated

KEY = ConnectionKey("h.io", 443, True, True, None, None, None)


def told(error: Exception) -> str:
    with pytest.raises(errors.RegistryError) as caught, translated(URL("https://h.io/v2/x")):
        raise error
    return str(caught.value)


def test_a_name_that_is_not_found_may_be_right() -> None:
    for number in (socket.EAI_NONAME, socket.EAI_AGAIN):
        message = told(aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(number, "unknown")))
        assert "h.io" in message
        assert "no DNS" in message
        assert "proxy" in message


@pytest.mark.parametrize(
    ("code", "advice", "no_advice"),
    [
        (18, "set ca_file", "another host"),
        (20, "set ca_file", "clock"),
        (62, "is for another host", "ca_file"),
        (64, "is for another host", "ca_file"),
        (10, "clock", "ca_file"),
    ],
)
def test_a_certificate_is_distrusted_for_a_reason(code: int, advice: str, no_advice: str) -> None:
    error = ssl.SSLCertVerificationError(1, "failed")
    error.verify_code, error.verify_message = code, "the reason"
    message = told(aiohttp.ClientConnectorCertificateError(KEY, error))
    assert advice in message
    assert no_advice not in message
    assert "the reason" in message


@pytest.mark.parametrize(
    "reason", ["TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE"]
)
def test_a_server_that_wants_our_certificate_names_the_setting(reason: str) -> None:
    alert = ssl.SSLError(1, "alert")
    alert.reason = reason
    broken = aiohttp.ClientOSError(1, "alert")
    broken.__cause__ = alert
    assert "set cert_file" in told(broken)
    alert.reason = "WRONG_VERSION_NUMBER"
    assert "cert_file" not in told(broken)
