"""Which hosts are asked by a proxy, which directly, and which are shown a certificate of ours."""

import ssl

import pytest
from yarl import URL

from services.converter.registry.endpoint import Ways
from services.converter.registry.errors import RegistryProtocolError
from services.converter.registry.neighbours import refuse_neighbours
from services.converter.registry.proxies import proxies_from
from shared.deadline import Deadline
from shared.errors import ConfigError

PROXY = "http://proxy.example.org:3128"
BOTH = {"http_proxy": PROXY, "https_proxy": PROXY}


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("", "https://h.org", False),
        ("*", "https://h.org", True),
        ("h.org", "https://h.org", True),
        ("h.org", "https://H.org.", True),
        ("h.org", "https://a.h.org", True),
        ("h.org", "https://notmyh.org", False),
        (".h.org", "https://h.org", False),
        ("*.h.org", "https://a.h.org", True),
        (" a , .h.org ", "https://a.h.org", True),
        ("h.org:5000", "https://h.org:5000", True),
        ("h.org:5000", "https://h.org", False),
        ("h.org:443", "https://h.org", True),
        ("10.1.0.0/16", "https://10.1.2.3", True),
        ("10.1.0.0/16", "https://10.2.2.3", False),
        ("10.1.2.3:80", "http://10.1.2.3", True),
        ("10.1.2.3", "https://h10.1.2.3.org", False),
        ("2001:db8::/32", "https://[2001:db8::1]", True),
        ("[2001:db8::1]:443", "https://[2001:db8::1]", True),
        (",.,", "https://h.org", False),
        # This machine's are never asked of somebody else.
        ("", "http://localhost:5000", True),
        ("", "http://127.0.0.1:5000", True),
        ("", "http://[::1]:5000", True),
    ],
)
def test_no_proxy_names_who_is_asked_directly(no_proxy: str, url: str, *, direct: bool) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        found = proxies_from(None, BOTH | {name: no_proxy}).leading_to(URL(url))
        assert found == (None if direct else URL(PROXY))


def test_each_scheme_has_its_own_and_small_letters_come_first() -> None:
    found = proxies_from(None, {"HTTPS_PROXY": "other:1", "https_proxy": "p:2", "HTTP_PROXY": ""})
    assert str(found.leading_to(URL("https://h.org"))) == "http://p:2"
    assert found.leading_to(URL("http://h.org")) is None
    assert "p:2" not in repr(found)


def test_a_registrys_own_setting_is_all_that_counts() -> None:
    environment = BOTH | {"NO_PROXY": "h.org"}
    own = proxies_from("http://own:1", environment)
    assert str(own.leading_to(URL("https://h.org"))) == "http://own:1"
    assert proxies_from("direct", environment).leading_to(URL("https://a.org")) is None


@pytest.mark.parametrize("text", ["socks5://hunter2@h:1", "http://", "http://h:0", "http://h:x"])
def test_what_is_no_proxy_is_told_without_its_password(text: str) -> None:
    with pytest.raises(ConfigError, match="HTTPS_PROXY is no address") as caught:
        proxies_from(None, {"HTTPS_PROXY": text})
    assert "hunter2" not in str(caught.value)


async def test_a_proxy_is_no_way_to_our_neighbours() -> None:
    far, deadline = URL("https://192.0.2.1"), Deadline.after(5)
    for host in ("127.0.0.1", "169.254.169.254", "[::1]", "localhost"):
        with pytest.raises(RegistryProtocolError, match="address of this machine"):
            await refuse_neighbours(far, URL(f"https://{host}/"), deadline, by_proxy=True)
    # Where only the proxy knows names, none is looked up here.
    await refuse_neighbours(far, URL("https://nowhere.invalid/"), deadline, by_proxy=True)


def test_our_certificate_is_for_the_registrys_own_host() -> None:
    trust, own = ssl.create_default_context(), ssl.create_default_context()
    ways = Ways(trust=trust, own=own, host="h.org")
    assert ways.tls(URL("https://h.org:5000/v2/")) is own
    assert ways.tls(URL("https://blobs.h.org/x")) is trust
    assert Ways(trust=trust, host="h.org").tls(URL("https://h.org/v2/")) is trust
