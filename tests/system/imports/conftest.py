"""A site that lets two users import, of whom one may publish; and three users."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.as_user import Somebody
from tests.support.private_site import ALICE, BOB, CAROL, TEAM
from tests.support.site import Site
from tests.support.users import let_everybody_in

SETTINGS = {
    "pull": {"max_tries": 1},
    "imports": {"allow": [str(ALICE), f"@{TEAM}"], "allow_public": [str(ALICE)]},
}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    let_everybody_in(tmp_path)
    async with Site(tmp_path / "site", SETTINGS) as site:
        await site.up()
        yield site


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where users have their files."""
    directory = tmp_path / "home"
    directory.mkdir(mode=0o755)
    return directory


@pytest.fixture
async def alice(site: Site) -> AsyncIterator[Somebody]:
    async with Somebody(site.socket, ALICE) as alice:
        yield alice


@pytest.fixture
async def bob(site: Site) -> AsyncIterator[Somebody]:
    async with Somebody(site.socket, BOB, TEAM) as bob:
        yield bob


@pytest.fixture
async def carol(site: Site) -> AsyncIterator[Somebody]:
    async with Somebody(site.socket, CAROL) as carol:
        yield carol
