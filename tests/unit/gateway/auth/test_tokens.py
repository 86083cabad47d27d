"""Tokens: what was signed is read again, and nothing else is."""

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.auth.identity import NotAuthenticatedError, Scope
from services.gateway.auth.secrets import SiteSecret
from services.gateway.auth.tokens import (
    CLOCK_SKEW,
    MAX_TOKEN,
    Claims,
    TokenExpiredError,
    TokenInvalidError,
    Tokens,
)

NOW = 1_800_000_000.0
KEY, OTHER = b"k" * 32, b"o" * 32

claims = st.builds(
    Claims,
    id=st.text("0123456789abcdef", min_size=1, max_size=32),
    name=st.text(min_size=1, max_size=64),
    scopes=st.frozensets(st.sampled_from(Scope)),
    issued=st.just(NOW),
    expires=st.floats(NOW + 1, NOW + 86400),
    uid=st.none() | st.integers(0, (1 << 32) - 1),
)
SAMPLE = Claims(
    id="1", name="alice", scopes=frozenset({Scope.READ}), issued=NOW, expires=NOW + 60, uid=1000
)


def tokens(*keys: bytes, at: float = NOW) -> Tokens:
    return Tokens(SiteSecret(keys or (KEY,)), clock=lambda: at)


@given(claims)
def test_what_was_signed_is_read_again(made: Claims) -> None:
    token = tokens().sign(made)
    assert tokens().read(token) == made
    assert len(token) <= MAX_TOKEN
    assert token.isprintable()
    assert token.isascii()


@given(made=claims, data=st.data())
def test_no_character_can_be_changed(made: Claims, data: st.DataObject) -> None:
    token = tokens().sign(made)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda char: char != token[place]))
    with pytest.raises(TokenInvalidError):
        tokens().read(token[:place] + other + token[place + 1 :])


@given(made=claims, data=st.data())
def test_nothing_can_be_cut_off_or_added(made: Claims, data: st.DataObject) -> None:
    token = tokens().sign(made)
    cut = data.draw(st.integers(0, len(token) - 1))
    more = data.draw(st.text(min_size=1, max_size=8))
    for changed in (token[:cut], token + more, more + token, token + "=", token + "\n"):
        with pytest.raises(TokenInvalidError):
            tokens().read(changed)


@given(st.text(max_size=300))
def test_garbage_is_refused_as_such(text: str) -> None:
    for garbage in (text, f"dray1.{text}", f"dray1.{text}.{text}"):
        with pytest.raises(TokenInvalidError):
            tokens().read(garbage)


def test_a_huge_one_is_refused() -> None:
    with pytest.raises(TokenInvalidError):
        tokens().read("dray1." + "A" * MAX_TOKEN)


@pytest.mark.parametrize("header", [{"alg": "none"}, {"alg": "HS256", "typ": "JWT"}])
def test_a_foreign_format_is_refused_even_with_our_key(header: dict[str, str]) -> None:
    """A JWT with every advantage: nothing in a token chooses how it is checked."""
    key = SiteSecret((KEY,)).derive("tokens")
    parts = (json.dumps(header).encode(), SAMPLE.model_dump_json().encode())
    body = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    mac = hmac.digest(key, body.encode(), hashlib.sha256)
    signature = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
    for token in (f"{body}.{signature}", f"{body}."):
        with pytest.raises(TokenInvalidError):
            tokens().read(token)


def test_the_other_key_of_the_site_s_secret_is_no_key_for_tokens() -> None:
    """What was sealed for another purpose must not pass for a token."""
    secret = SiteSecret((KEY,))
    assert len({secret.derive("tokens"), secret.derive("registry logins"), KEY}) == 3


def test_any_gateway_reads_it_while_the_keys_are_being_replaced() -> None:
    made_before = tokens(KEY).sign(SAMPLE)
    made_after = tokens(OTHER, KEY).sign(SAMPLE)
    assert tokens(OTHER, KEY).read(made_before) == SAMPLE
    assert tokens(OTHER, KEY).read(made_after) == SAMPLE
    for only, token in ((OTHER, made_before), (KEY, made_after)):
        with pytest.raises(TokenInvalidError):
            tokens(only).read(token)


def test_it_lives_from_when_it_was_made_until_it_expires() -> None:
    token = tokens().sign(SAMPLE)
    for at in (NOW - CLOCK_SKEW, NOW, NOW + 60):
        assert tokens(at=at).read(token) == SAMPLE
    for at in (NOW - CLOCK_SKEW - 1, NOW + 61):
        with pytest.raises(TokenExpiredError) as caught:
            tokens(at=at).read(token)
        assert isinstance(caught.value, NotAuthenticatedError)
        assert "dray token" in caught.value.message


def test_one_that_was_read_before_expires_as_well() -> None:
    """Its signature is checked once, and its time each time."""
    clock = [NOW]
    reader = Tokens(SiteSecret((KEY,)), clock=lambda: clock[0])
    token = reader.sign(SAMPLE)
    assert reader.read(token) == reader.read(token) == SAMPLE
    clock[0] = NOW + 61
    with pytest.raises(TokenExpiredError):
        reader.read(token)
    with pytest.raises(TokenInvalidError):
        reader.read(f"{token}x")
