"""The grid of a system's nodes: true to the catalog, whichever gateway hears the nodes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.gateway.live import node_grids
from services.gateway.live.node_grids import NodeGrids
from shared.api import NodeGrid
from shared.catalog.interface import Catalog
from shared.catalog.records import NodeRecord
from shared.hostlist import expand
from tests.support.catalogs import node_record, opened, put, soon
from tests.support.conditions import eventually
from tests.support.gateways import gateway


async def heard(catalog: Catalog, name: str, *, system: str = "alps", **fields: object) -> None:
    found = await catalog.nodes.get(name)
    version = found.version if found else 0
    record = node_record(name, node=name, system=system, version=version, **fields)
    await catalog.nodes.change(name, put(record), soon())


async def shown(grids: NodeGrids, system: str = "alps") -> dict[str, str]:
    body, _ = await grids.grid(system)
    grid = NodeGrid.model_validate_json(body)
    names = expand(grid.hostlist) if grid.hostlist else ()
    return dict(zip(names, grid.letters, strict=True))


@pytest.fixture
async def others(catalog_url: str) -> AsyncIterator[Catalog]:
    async with opened(catalog_url) as catalog:
        yield catalog


async def test_nodes_are_alive_busy_or_lost_whoever_heard_them(
    catalog: Catalog, others: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_grids, "FRESH_SECONDS", 0.0)
    grids = NodeGrids(catalog)
    assert await shown(grids) == {}
    await heard(catalog, "nid2")
    await heard(others, "nid10", mounts=2)
    await heard(others, "login", lost=True)
    await heard(others, "far", system="other")
    assert await shown(grids) == {"nid2": "A", "nid10": "B", "login": "L"}
    assert await shown(grids, "other") == {"far": "A"}
    same = await grids.grid("alps")
    await heard(catalog, "nid2")
    assert await grids.grid("alps") == same, "a heartbeat like the one before changes nothing"
    await heard(others, "nid2", mounts=1)
    await heard(catalog, "nid10", lost=True)
    await heard(others, "far", mounts=1)
    assert await shown(grids) == {"nid2": "B", "nid10": "L", "login": "L", "far": "B"}
    assert (await grids.grid("alps"))[1] != same[1]
    assert await shown(grids, "other") == {}
    await grids.stop()


async def test_what_is_removed_leaves_and_what_nobody_asks_for_is_forgotten(
    catalog: Catalog, others: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_grids, "FILL_SECONDS", 0.0)
    grids = NodeGrids(catalog)
    await heard(catalog, "nid1")
    await heard(catalog, "nid2")
    assert await shown(grids) == {"nid1": "A", "nid2": "A"}
    record = await others.nodes.get("nid1")
    assert isinstance(record, NodeRecord)
    assert await others.nodes.remove("nid1", record.version)
    assert await shown(grids) == {"nid2": "A"}
    assert len(grids) == 1
    monkeypatch.setattr(node_grids, "LINGER_SECONDS", 0.01)
    await shown(grids)
    await eventually(lambda: len(grids) == 0, within=5)
    await heard(catalog, "nid2", mounts=1)
    assert len(grids) == 0, "nothing is kept for nobody"
    assert await shown(grids) == {"nid2": "B"}
    await grids.stop()


async def test_a_gateway_answers_it_with_an_etag(tmp_path: Path) -> None:
    site = {"systems": {"alps": {"image_dir": tmp_path / "images"}}}
    async with (
        gateway(tmp_path / "gateway", site) as running,
        opened(f"sqlite://{tmp_path}/gateway/catalog.db") as catalog,
    ):
        await heard(catalog, "nid1")
        await heard(catalog, "nid2", mounts=1)
        said = await running.ask("/nodes/grid?system=alps")
        assert said.body == {"system": "alps", "hostlist": "nid[1-2]", "letters": "AB"}
        same = await running.ask("/nodes/grid", if_none_match=said.headers["ETag"])
        assert same.status == 304
        assert (await running.ask("/nodes/grid?system=none")).status == 404
