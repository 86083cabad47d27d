"""Jobs as users see them: theirs, bounded, and counted by the database."""

import asyncio
from datetime import timedelta

import pytest

from services.gateway.auth.identity import NotAllowedError, NotAuthenticatedError
from services.gateway.jobs import views as job_views
from services.gateway.jobs.views import NODES_SHOWN, JobFilter, JobViews
from shared.catalog.interface import Catalog
from shared.catalog.records import JobRecord, StagingRecord, StagingState, staging_key
from shared.errors import NotFoundError
from shared.models import utcnow
from tests.support.bulk import store_many
from tests.support.busy import never_busy_for_long
from tests.support.catalogs import put, soon
from tests.support.transitions import NOW
from tests.support.usage import ADA, ADMIN, BOB, PUBLIC, SERVICE

PENDING, STAGED, FAILED = StagingState.PENDING, StagingState.STAGED, StagingState.FAILED
NONE = dict.fromkeys(StagingState, 0)


async def store_job(catalog: Catalog, number: int, **fields: object) -> JobRecord:
    nodes = fields.pop("nodes", ("n1", "n2"))
    assert isinstance(nodes, tuple)
    given: dict[str, object] = {
        "key": str(number),
        "job_id": str(number),
        "system": "alps",
        "requested": (),
        "images": (),
        "nodes": nodes,
        "node_count": len(nodes),
        "announced_by": "slurm",
        "announced_at": NOW + timedelta(seconds=number),
        **fields,
    }
    record = await catalog.jobs.change(str(number), put(JobRecord.model_validate(given)), soon())
    assert record is not None
    return record


async def store_nodes(catalog: Catalog, job: JobRecord, state: StagingState, *nodes: str) -> None:
    for node in nodes:
        record = StagingRecord(
            key=staging_key(job.job_id, node),
            job_id=job.job_id,
            node=node,
            announced_at=job.announced_at,
            state=state,
        )
        await catalog.stagings.change(record.key, put(record), soon())


async def test_a_list_counts_nodes_and_shows_none(catalog: Catalog) -> None:
    older = await store_job(catalog, 1, nodes=("n1", "n2", "n3"), uid=1000)
    await store_nodes(catalog, older, STAGED, "n1")
    await store_nodes(catalog, older, FAILED, "n2")
    # Of an earlier job that had the same id.
    past = older.but(announced_at=older.announced_at - timedelta(days=1))
    await store_nodes(catalog, past, FAILED, "n7", "n8")
    await store_job(catalog, 2, uid=2000, released_at=utcnow(), system="daint")
    views = JobViews(catalog)
    [second, first], following = await views.page(ADMIN, JobFilter(), None, 10)
    assert following is None
    assert first.counts == NONE | {PENDING: 1, STAGED: 1, FAILED: 1}
    assert first.hostlist == "n[1-3]"
    assert (first.node_count, first.uid) == (3, 1000)
    assert (second.job_id, second.counts[PENDING]) == ("2", 2)
    only = [
        (JobFilter(uid=1000), "1"),
        (JobFilter(system="daint"), "2"),
        (JobFilter(running=True), "1"),
        (JobFilter(uid=1000, running=True, system="alps"), "1"),
    ]
    for wanted, job_id in only:
        jobs, _ = await views.page(ADMIN, wanted, None, 10)
        assert [job.job_id for job in jobs] == [job_id]


async def test_pages_follow_each_other(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_views, "_AT_ONCE", 2)
    for number in range(7):
        # Some at the very same time.
        await store_job(catalog, number, announced_at=NOW + timedelta(seconds=number // 3))
    views = JobViews(catalog)
    seen: list[str] = []
    beyond, rounds = None, 0
    while rounds == 0 or beyond is not None:
        jobs, beyond = await views.page(ADMIN, JobFilter(), beyond, 3)
        assert len(jobs) <= 3
        seen += [job.job_id for job in jobs]
        rounds += 1
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]


async def test_a_page_ends_where_there_are_too_many_nodes(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_views, "NODES_COUNTED", 3)
    for number in range(3):
        await store_job(catalog, number, nodes=("n1", "n2", "n3", "n4")[: 4 - number])
    views = JobViews(catalog)
    jobs, beyond = await views.page(ADMIN, JobFilter(), None, 10)
    assert [job.job_id for job in jobs] == ["2"]
    jobs, beyond = await views.page(ADMIN, JobFilter(), beyond, 10)
    assert [job.job_id for job in jobs] == ["1"]
    jobs, beyond = await views.page(ADMIN, JobFilter(), beyond, 10)
    assert [job.job_id for job in jobs] == ["0"], "one that is too large alone is shown, too"


async def test_users_see_their_own_jobs(catalog: Catalog) -> None:
    await store_job(catalog, 1, uid=1000)
    await store_job(catalog, 2, uid=2000)
    await store_job(catalog, 3)
    views = JobViews(catalog)
    for who, mine in ((ADA, "1"), (BOB, "2")):
        jobs, _ = await views.page(who, JobFilter(), None, 10)
        assert [job.job_id for job in jobs] == [mine]
        assert (await views.get(mine, who)).job_id == mine
        jobs, _ = await views.page(who, JobFilter(uid=who.uid), None, 10)
        assert [job.job_id for job in jobs] == [mine]
    with pytest.raises(NotAllowedError):
        await views.page(BOB, JobFilter(uid=1000), None, 10)
    with pytest.raises(NotAllowedError):
        await views.page(SERVICE, JobFilter(), None, 10)
    with pytest.raises(NotAuthenticatedError):
        await views.page(PUBLIC, JobFilter(), None, 10)
    for who in (BOB, SERVICE, PUBLIC):
        with pytest.raises(NotFoundError) as hidden:
            await views.get("1", who)
        with pytest.raises(NotFoundError) as absent:
            await views.get("9", who)
        assert hidden.value.message.replace("job 1", "job 9") == absent.value.message
    with pytest.raises(NotFoundError):
        await views.get("3", ADA)
    assert (await views.get("3", ADMIN)).job_id == "3"


async def test_a_job_shows_the_nodes_that_are_not_as_they_should_be(catalog: Catalog) -> None:
    names = tuple(f"n{number:03}" for number in range(300))
    job = await store_job(catalog, 1, nodes=names)
    await store_nodes(catalog, job, STAGED, *names[:150])
    await store_nodes(catalog, job, PENDING, *names[150:290])
    await store_nodes(catalog, job, FAILED, *names[290:295])
    view = await JobViews(catalog).show(job)
    assert view.counts == NONE | {STAGED: 150, PENDING: 145, FAILED: 5}
    assert [node.node for node in view.nodes[:5]] == list(names[290:295])
    assert [node.node for node in view.nodes[5:]] == list(names[150:245])
    assert len(view.nodes) == NODES_SHOWN
    assert view.next is None


async def test_all_nodes_come_by_name_whether_they_were_told_or_not(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_views, "_PAGE", 2)
    job = await store_job(catalog, 1, nodes=("c", "a", "b", "e", "d", "b2"))
    past = job.but(announced_at=job.announced_at - timedelta(days=1))
    await store_nodes(catalog, past, FAILED, "a", "a0", "a1", "a2", "z")
    await store_nodes(catalog, job, STAGED, "b", "b2")
    await store_nodes(catalog, job, FAILED, "e")
    views = JobViews(catalog)
    found: dict[str, StagingState] = {}
    after: str | None = None
    while True:
        view = await views.show_all(job, after, 4)
        found |= {node.node: node.state for node in view.nodes}
        after = view.next
        if after is None:
            break
    assert list(found) == ["a", "b", "b2", "c", "d", "e"]
    assert [state.value[0] for state in found.values()] == ["P", "S", "S", "P", "P", "F"]


async def test_ten_thousand_nodes_hold_nobody_up(catalog: Catalog, catalog_url: str) -> None:
    names = tuple(f"nid{number:05}" for number in range(10_000))
    stored = await store_job(catalog, 1, nodes=names)
    stagings = [
        StagingRecord(
            key=staging_key("1", name),
            version=1,
            job_id="1",
            node=name,
            announced_at=stored.announced_at,
            state=FAILED if number % 10 == 0 else STAGED,
        )
        for number, name in enumerate(names)
    ]
    await asyncio.to_thread(store_many, catalog_url, stagings)
    views = JobViews(catalog)
    async with never_busy_for_long():
        job = await views.get("1", ADMIN)
        view = await views.show(job)
        assert view.counts == NONE | {STAGED: 9000, FAILED: 1000}
        assert len(view.model_dump_json()) < 30_000
        every = await views.show_all(job, names[4999], 1000)
        assert [node.node for node in every.nodes] == list(names[5000:6000])
        [[summary], _] = await views.page(ADMIN, JobFilter(), None, 10)
        assert summary.counts == view.counts
