"""The site's secret: its file, its keys, and what is derived from them."""

import threading
from pathlib import Path

import pytest

from services.gateway.auth.secrets import SiteSecret
from shared.errors import ConfigError

HKDF_OF_TOKENS = "8c9eca661b8ad44b1df754e55981aed35c554d8f3c89b7c83550f338fd871ad1"
"""By `openssl kdf HKDF`: SHA-256, 32 bytes, salt "dray site secret v1", info "tokens"."""


def test_the_first_start_makes_it_for_its_own_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "gateway.secret"
    made = SiteSecret.load_or_make(path)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert SiteSecret.load_or_make(path).derive("x") == made.derive("x")
    assert SiteSecret.load(path).derive("x") == made.derive("x")
    other = SiteSecret.load_or_make(tmp_path / "other")
    assert other.derive("x") != made.derive("x")


def test_gateways_that_start_together_agree(tmp_path: Path) -> None:
    path = tmp_path / "gateway.secret"
    found: list[bytes] = []
    together = threading.Barrier(8)

    def start() -> None:
        together.wait()
        found.append(SiteSecret.load_or_make(path).derive("x"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_keys_are_told_apart_by_purpose_and_kept_out_of_sight(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{'n' * 40}\n\n  {'o' * 40}\n")
    secret = SiteSecret.load(path)
    assert secret.derive("a") != secret.derive("b")
    assert [len(key) for key in secret.derive_all("a")] == [32, 32]
    assert secret.derive("a") == secret.derive_all("a")[0]
    assert "n" * 40 not in repr(secret)


def test_the_derivation_is_hkdf() -> None:
    """As RFC 5869 has it: what is sealed must be readable by every later version."""
    key = SiteSecret((b"0" * 32,)).derive("tokens")
    assert key.hex() == HKDF_OF_TOKENS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "1 to 8 lines"),
        ("short\n", "at least 32 characters"),
        (f"{'k' * 32}\nshort\n", "at least 32 characters"),
        (f"{'k' * 32}\n" * 9, "1 to 8 lines"),
        ("k" * 20_000, "1 to 8 lines"),
    ],
)
def test_a_weak_file_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "secret"
    path.write_text(content)
    with pytest.raises(ConfigError, match=reason):
        SiteSecret.load(path)


def test_a_named_file_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no .*openssl rand -hex 32.*same for all"):
        SiteSecret.load(tmp_path / "secret")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"gateway.secret_file: cannot make"):
        SiteSecret.load_or_make(tmp_path / "file" / "secret")
