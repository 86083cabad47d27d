"""Every question that the catalog asks is answered from an index, in both databases."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from shared.catalog.interface import Catalog, Where
from shared.catalog.sqlite import SqliteStore
from shared.catalog.totals import Between, Place, Totals
from shared.models import utcnow
from tests.support.catalogs import opened
from tests.support.mongo import running_mongod

RUNNING: Where = {"released_at": None}
"""The jobs that have not ended: looked for every second, among all that have."""


class Outline(BaseModel):
    state: str


async def ask_everything(catalog: Catalog) -> None:
    await catalog.images.get("key")
    await catalog.images.find({"system": "alps", "state": ["READY", "INIT"]}, limit=10)
    await catalog.images.find({"system": "alps"}, after="key", limit=10)
    await catalog.images.find({"pull_id": "p"}, limit=10)
    await catalog.stagings.find({"job_id": "1", "state": "STAGED"}, limit=10)
    await catalog.stagings.find({"node": "nid1", "released": "0"}, limit=10)
    await catalog.nodes.find({"system": "alps", "lost": "1"}, limit=10)
    await catalog.images.get_many(["a", "b"])
    await catalog.images.outlines(Outline, after="key", limit=10)
    await catalog.images.changed_since(await catalog.images.position())
    await catalog.logins.find({"uid": "1000"}, limit=10)
    beyond = Place("2026", "key")
    for where in ({"system": "alps"}, {"system": "alps", "uid": "1000"}):
        await catalog.usage.newest(Outline, "last", where, beyond=beyond, limit=10)
    for where in ({}, {"system": "alps"}, {"uid": "1000"}):
        await catalog.jobs.newest(Outline, "announced_at", where, beyond=beyond, limit=10)
    whose: tuple[Where, ...] = ({}, {"system": "alps"}, {"uid": "1000"})
    for each in whose:
        running_jobs = {**each, **RUNNING}
        await catalog.jobs.newest(Outline, "announced_at", running_jobs, beyond=beyond, limit=10)
    hours = Between("hour", "2026-01", "2026-02")
    by_user = Totals(by=("user",), sums=("jobs",), between=hours, where={"system": ("a",)}, limit=9)
    await catalog.usage.totals(by_user)
    users = ("image_id", "system", "uid", "user", "private", "owner")
    await catalog.usage.totals(Totals(by=users, where={"image_id": ("a", "b")}, limit=9))
    await catalog.history.outlines(Outline, after="2026-11-21T09:00", limit=10)
    await catalog.stagings.totals(Totals(by=("state",), where={"job_id": ("1",)}, limit=9))
    running = {"system": ("alps", "daint"), "released_at": (None,)}
    await catalog.jobs.totals(Totals(by=("system",), sums=("node_count",), where=running, limit=9))
    here = {"released": ("0",), "system": ("alps", "daint", None)}
    await catalog.stagings.totals(Totals(by=("system", "state"), where=here, limit=9))
    failed = {**here, "state": ("FAILED",)}
    await catalog.stagings.totals(Totals(by=("system", "job_id"), where=failed, limit=9))
    at_all = Totals(by=("system", "lost"), where={"system": ("alps",)}, limit=9)
    await catalog.nodes.totals(at_all)
    for kind in (catalog.images, catalog.jobs, catalog.stagings, catalog.nodes):
        await kind.due(utcnow(), 10)
    await catalog.pending(utcnow(), 10)


async def test_sqlite_scans_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Sequence[object]]] = []
    ask = SqliteStore._ask

    async def noted(
        store: SqliteStore, connection: Any, statement: str, values: Sequence[object]
    ) -> list[sqlite3.Row]:
        asked.append((statement, values))
        return await ask(store, connection, statement, values)

    monkeypatch.setattr(SqliteStore, "_ask", noted)
    async with opened(f"sqlite://{tmp_path}/catalog.db") as catalog:
        await ask_everything(catalog)
        with closing(sqlite3.connect(tmp_path / "catalog.db")) as connection:
            plans = [
                " / ".join(
                    row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
                )
                for sql, values in asked
            ]
    assert len(plans) == 33
    told = zip(asked, plans, strict=True)
    running = [plan for (sql, _), plan in told if "released_at') AS TEXT) IS NULL" in sql]
    assert len(running) == 4
    assert [plan for plan in running if "released_at" not in plan] == []
    plans = [plan.replace("SCAN picked", "") for plan in plans]  # what a total has found already
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
    assert len(plans) == 41
    by_index = ("IXSCAN", "IDHACK", "COUNT_SCAN")
    assert [plan for plan in plans if plan.split()[1] not in by_index] == []
