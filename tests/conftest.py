"""Fixtures that are shared by the whole session."""

from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

from tests.support.apart import WORKERS, rank, stand_apart
from tests.support.bus_sites import EmbeddedSite, RabbitSite, Site
from tests.support.rabbitmq import RabbitNode, need_rabbitmq

# How long one example takes depends on what else the machine does: Hypothesis allows 200 ms, which
# is a measurement, and those are made in bench/.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_xdist_auto_num_workers() -> int:
    return WORKERS


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        stand_apart()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(item.path, config.rootpath))


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """One broker for all tests that leave it running; they use queues with names of their own."""
    need_rabbitmq()
    node = RabbitNode(tmp_path_factory.mktemp("rabbitmq") / "node")
    try:
        yield node.start()
    finally:
        node.discard()


@pytest.fixture(params=["embedded", "rabbitmq"])
async def bus_site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """Services on one bus, with each adapter in turn."""
    made: Site = (
        EmbeddedSite()
        if request.param == "embedded"
        else RabbitSite(request.getfixturevalue("rabbit"))
    )
    yield made
    await made.close()
