"""Every question that the catalog asks is answered from an index, in both databases."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shared.catalog.interface import Catalog
from shared.catalog.sqlite import SqliteStore
from shared.models import utcnow
from tests.support.catalogs import opened
from tests.support.mongo import running_mongod


async def ask_everything(catalog: Catalog) -> None:
    await catalog.images.get("key")
    await catalog.images.find({"system": "alps", "state": ["READY", "INIT"]}, limit=10)
    await catalog.images.find({"system": "alps"}, after="key", limit=10)
    await catalog.images.find({"pull_id": "p"}, limit=10)
    await catalog.stagings.find({"job_id": "1", "state": "STAGED"}, limit=10)
    for kind in (catalog.images, catalog.jobs, catalog.stagings, catalog.nodes):
        await kind.due(utcnow(), 10)
    await catalog.pending(utcnow(), 10)


async def test_sqlite_scans_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    select = SqliteStore._select

    async def noted(store: SqliteStore, statement: str, *values: object) -> list[sqlite3.Row]:
        asked.append((statement, values))
        return await select(store, statement, *values)

    monkeypatch.setattr(SqliteStore, "_select", noted)
    async with opened(f"sqlite://{tmp_path}/catalog.db") as catalog:
        await ask_everything(catalog)
        with closing(sqlite3.connect(tmp_path / "catalog.db")) as connection:
            plans = [
                " / ".join(
                    row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
                )
                for sql, values in asked
            ]
    assert len(plans) == 10
    assert [plan for plan in plans if "SCAN" in plan or "USING" not in plan] == []


async def test_mongodb_scans_no_collection(tmp_path: Path) -> None:
    with running_mongod(tmp_path) as server, server.client() as client:
        database = client["dray"]
        async with opened(server.url()) as catalog:
            database.command("profile", 2)
            await ask_everything(catalog)
            database.command("profile", 0)
        asked = {"ns": {"$ne": "dray.system.profile"}, "op": {"$in": ["query", "command"]}}
        plans = [
            f"{each['ns']} {each['planSummary']}"
            for each in database["system.profile"].find(asked)
            if "planSummary" in each
        ]
    assert len(plans) == 13
    by_index = ("IXSCAN", "IDHACK", "COUNT_SCAN")
    assert [plan for plan in plans if plan.split()[1] not in by_index] == []
