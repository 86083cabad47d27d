"""Which database a URL means, and what is said about one that means none."""

import subprocess
import sys

import pytest

from shared.catalog.open import catalog_at
from shared.errors import ConfigError, MissingDependencyError


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:",
        "sqlite://relative.db",
        "sqlite",
        "",
        "postgresql://host/db",
        "mongodb+srv://host/",
    ],
)
def test_a_url_that_means_no_database_is_answered_with_what_does(url: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///absolute/path or mongodb://"):
        catalog_at(url, timeout=1)


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://user:s3cret/with@slash@host/dray",
        "mongodb://user:s3cret:more@host/dray",
        "mongodb://host:s3cret/dray",
        "mongodb://",
    ],
)
def test_a_malformed_mongodb_url_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match=r"catalog\.url is not a MongoDB URL") as caught:
        catalog_at(url, timeout=1)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__, "nor in the traceback"


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [
        ("sqlite:///tmp/catalog.db", "shared.catalog.sqlite", "aiosqlite"),
        ("mongodb://host/dray", "shared.catalog.mongo", "pymongo"),
    ],
)
def test_a_driver_that_is_not_installed_is_named_with_the_extra_that_has_it(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, package: str
) -> None:
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"{package}.*dray\[gateway\]"):
        catalog_at(url, timeout=1)


def test_no_driver_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys; from shared.catalog.open import catalog_at; "
        "catalog_at('sqlite:///tmp/c.db', timeout=1); "
        "print('aiosqlite' in sys.modules, 'pymongo' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert result.stdout.split() == ["True", "False"]
