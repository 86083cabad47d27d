"""Registry credentials in a MUNGE credential's payload."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.auth.identity import Login
from services.gateway.auth.locations import (
    MAX_LOCATIONS,
    MAX_PAYLOAD,
    TooManyLoginsError,
    location,
    parse_locations,
)

USERS = st.text(min_size=1, max_size=40).filter(lambda text: ":" not in text)
PASSWORDS = st.text(max_size=80)
HOSTS = st.from_regex(r"[a-z0-9]{1,10}\.example\.org(:[0-9]{1,5})?", fullmatch=True)


def payload(**locations: object) -> bytes:
    return json.dumps({"authorized_locations": locations}).encode()


def test_a_password_keeps_its_colons_and_quotes() -> None:
    text = r"""{"authorized_locations":{"default":"ada:p:a\"s's\\:word:"}}"""
    assert parse_locations(text.encode()) == {"default": Login("ada", "p:a\"s's\\:word:")}


@given(st.dictionaries(HOSTS, st.tuples(USERS, PASSWORDS), max_size=MAX_LOCATIONS))
def test_what_is_written_is_read(logins: dict[str, tuple[str, str]]) -> None:
    written = {host: f"{user}:{password}" for host, (user, password) in logins.items()}
    found = parse_locations(payload(**written))
    assert {host: (login.username, login.password) for host, login in found.items()} == logins


@given(st.binary(max_size=2000))
def test_any_bytes_are_no_error(content: bytes) -> None:
    assert parse_locations(content) == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=20,
)


@given(json_values, json_values)
def test_any_json_is_no_error(message: object, locations: object) -> None:
    parse_locations(json.dumps(message).encode())
    found = parse_locations(json.dumps({"authorized_locations": locations}).encode())
    assert all(login.username and ":" not in login.username for login in found.values())


@pytest.mark.parametrize("content", [b"", b"test", b"[]", b"{}", b"[" * 50_000, b'{"a": 1}'])
def test_a_payload_without_logins_brings_none(content: bytes) -> None:
    assert parse_locations(content) == {}


@pytest.mark.parametrize("login", ["nopassword", ":nouser", "", 7, None, ["a:b"]])
def test_what_is_no_login_is_left_out(login: object) -> None:
    assert parse_locations(payload(default="a:b", other=login)) == {"default": Login("a", "b")}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("default", "default"),
        ("Registry.Example.ORG:5000", "registry.example.org:5000"),
        ("https://registry.example.org/v2/", "registry.example.org"),
        ("index.docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
def test_a_registry_has_one_name(written: str, meant: str) -> None:
    assert location(written) == meant


def test_there_is_a_limit() -> None:
    many = {f"r{number}.example.org": "a:b" for number in range(MAX_LOCATIONS + 1)}
    with pytest.raises(TooManyLoginsError, match="65 registries"):
        parse_locations(payload(**many))
    with pytest.raises(TooManyLoginsError, match="64 KiB"):
        parse_locations(b" " * (MAX_PAYLOAD + 1))


def test_half_a_character_is_in_no_login() -> None:
    """Such a text could be kept, but never sent: the gateway would fail at it."""
    content = rb'{"authorized_locations": {"a.example.org": "ada:\ud800", "b\udfff.org": "a:b"}}'
    assert parse_locations(content) == {}


def test_passwords_are_in_no_repr() -> None:
    assert "secret" not in repr(parse_locations(payload(default="ada:secret")))
