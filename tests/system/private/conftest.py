"""A site, a registry, and three users."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.as_user import Somebody
from tests.support.private_site import ALICE, BOB, CAROL, CAROLS, PASSWORD, TEAM
from tests.support.registry import DebianRegistry
from tests.support.site import Site
from tests.support.users import let_everybody_in


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DebianRegistry]:
    """It lets alice and carol in."""
    with DebianRegistry(
        tmp_path / "registry", login=("alice", PASSWORD), others={"carol": CAROLS}
    ) as registry:
        yield registry


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    let_everybody_in(tmp_path)
    # What fails here fails for good.
    async with Site(tmp_path / "site", {"pull": {"max_tries": 1}}) as site:
        await site.up()
        yield site


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
