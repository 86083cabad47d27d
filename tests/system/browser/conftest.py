"""One site with a registry and one browser for all of these tests: both take seconds to start.

They share one event loop, since a browser cannot be used from another.
"""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.browser import Open, a_browser, watched_page
from tests.support.dashboard import Dashboard
from tests.support.private_site import PASSWORD
from tests.support.registry import DebianRegistry
from tests.support.site import Site


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with a_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRegistry]:
    """Gives images to everybody."""
    with DebianRegistry(tmp_path_factory.mktemp("browser") / "registry") as registry:
        yield registry


@pytest.fixture(scope="session")
def alices_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRegistry]:
    """Gives images to alice only."""
    place = tmp_path_factory.mktemp("browser") / "registry"
    with DebianRegistry(place, login=("alice", PASSWORD)) as registry:
        yield registry


@pytest.fixture(scope="session")
def site_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser") / "site"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def dashboard(browser: Browser, site_directory: Path) -> AsyncIterator[Dashboard]:
    """All services in one process, as `dray up` runs them."""
    assert browser.is_connected()
    # What fails here fails for good; and a second pull waits for the first.
    settings = {"pull": {"max_tries": 1}, "converter": {"slots": 1}}
    async with Site(site_directory, settings) as site:
        await site.up()
        yield Dashboard(site)


@pytest.fixture
def open_page(browser: Browser, dashboard: Dashboard) -> Open:
    """`async with open_page(token, "#/pulls") as seen:` in a window of its own."""
    return partial(watched_page, browser, dashboard.url)
