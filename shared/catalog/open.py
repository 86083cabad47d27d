"""Which database a URL means. The drivers are imported only here, and only when they are needed."""

from pathlib import Path

from shared.catalog.base import StoredCatalog
from shared.catalog.interface import Catalog
from shared.errors import ConfigError, MissingDependencyError


def catalog_at(url: str, *, timeout: float) -> Catalog:
    """The catalog at `sqlite:///path` or `mongodb://host,host/database`, not yet opened.

    `timeout` bounds, in seconds, every call that is given no deadline of its own.
    """
    scheme, _, rest = url.partition("://")
    try:
        if scheme == "sqlite" and rest.startswith("/"):
            from shared.catalog.sqlite import SqliteStore  # noqa: PLC0415

            return StoredCatalog(SqliteStore(Path("/" + rest.lstrip("/"))), timeout)
        if scheme == "mongodb":
            from shared.catalog.mongo import MongoStore  # noqa: PLC0415

            return StoredCatalog(MongoStore(url, timeout), timeout)
    except ModuleNotFoundError as exc:
        message = f"the catalog needs the Python package {exc.name}: pip install 'dray[gateway]'"
        raise MissingDependencyError(message) from exc
    raise ConfigError("catalog.url must be sqlite:///absolute/path or mongodb://host,host/database")
