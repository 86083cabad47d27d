"""Sealed passwords: opened where they were sealed, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.auth.identity import Login
from services.gateway.auth.secrets import SiteSecret
from services.gateway.sealing import SealBrokenError, Sealer

SEALER = Sealer(SiteSecret((b"k" * 32,)))
LOGIN = Login("ada", "pa:ss\"w'ord")
KEY = "1000/registry.example.org"


@given(st.text(), st.text(), st.text(max_size=200))
def test_what_was_sealed_comes_back(username: str, password: str, key: str) -> None:
    login = Login(username, password)
    sealed = SEALER.seal(login, key)
    assert SEALER.open(sealed, key) == login
    assert sealed.isascii()


def test_two_seals_of_one_password_differ() -> None:
    assert SEALER.seal(LOGIN, KEY) != SEALER.seal(LOGIN, KEY)


@given(st.data())
def test_a_changed_seal_cannot_be_opened(data: st.DataObject) -> None:
    sealed = SEALER.seal(LOGIN, KEY)
    where = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.characters(min_codepoint=1, max_codepoint=255))
    changed = sealed[:where] + other + sealed[where + 1 :]
    if changed == sealed:
        return
    with pytest.raises(SealBrokenError):
        SEALER.open(changed, KEY)


@given(st.text(max_size=200))
def test_what_is_no_seal_is_an_error_that_helps(text: str) -> None:
    with pytest.raises(SealBrokenError, match="log in to the registry again"):
        SEALER.open(text, KEY)


def test_a_seal_is_good_for_its_own_record_only() -> None:
    sealed = SEALER.seal(LOGIN, KEY)
    with pytest.raises(SealBrokenError):
        SEALER.open(sealed, "1001/registry.example.org")


def test_a_secret_can_be_replaced_while_the_old_one_is_kept_behind_it() -> None:
    sealed = SEALER.seal(LOGIN, KEY)
    both = Sealer(SiteSecret((b"n" * 32, b"k" * 32)))
    assert both.open(sealed, KEY) == LOGIN
    only_new = Sealer(SiteSecret((b"n" * 32,)))
    with pytest.raises(SealBrokenError):
        only_new.open(sealed, KEY)
    assert only_new.open(both.seal(LOGIN, KEY), KEY) == LOGIN


def test_no_password_is_in_a_repr() -> None:
    assert "pa:ss" not in repr(LOGIN)
    assert "kkkk" not in repr(SEALER) + repr(SiteSecret((b"k" * 32,)))
