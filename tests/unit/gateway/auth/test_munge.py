"""MUNGE on a gateway whose machine lacks it; with it, see the integration tests."""

from collections.abc import Iterator

import pytest

from services.gateway.auth.identity import NotAuthenticatedError
from services.gateway.auth.munge import MAX_CREDENTIAL, MungeUnavailableError, MungeUsers
from shared import munge


@pytest.fixture(autouse=True)
def no_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(munge, "LIBRARY", "libmunge-that-nobody-has.so.9")
    munge._library.cache_clear()
    yield
    munge._library.cache_clear()


async def test_a_gateway_without_the_library_says_what_is_missing() -> None:
    users = MungeUsers(None)
    with pytest.raises(MungeUnavailableError, match="libmunge2 on Debian") as caught:
        await users.decode("MUNGE:AAAA:")
    assert (caught.value.status, caught.value.retryable) == (503, True)
    users.close()


@pytest.mark.parametrize(
    "text", ["", "x", "MUNGE:a b:", "MUNGE:ä:", "MUNGE::", f"MUNGE:{'A' * MAX_CREDENTIAL}:"]
)
async def test_what_is_no_credential_by_its_form_is_not_even_asked_about(text: str) -> None:
    users = MungeUsers(None)
    with pytest.raises(NotAuthenticatedError) as caught:
        await users.decode(text)
    assert caught.value.code == "munge_invalid"
    users.close()


def test_a_command_without_the_library_goes_on_without() -> None:
    assert not munge.Munge().there()
