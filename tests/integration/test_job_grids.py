"""The grids of jobs: true to the catalog whoever changes it, live, and for whose eyes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.auth.identity import Principal, Scope
from services.gateway.feed import TooManyFollowersError
from services.gateway.jobs.views import JobViews
from services.gateway.live import job_grids
from services.gateway.live.job_grids import JobGrids
from services.gateway.live.job_stream import JobStream
from shared.catalog.interface import Catalog
from shared.catalog.records import JobRecord, StagingState
from shared.errors import NotFoundError
from tests.support.catalogs import opened
from tests.support.conditions import eventually
from tests.support.grids import announced, letters_of, over, staged
from tests.support.lifecycle import ADA, ADMIN, BOB
from tests.support.two_gateways import Pair, following, pair

OWNER, STRANGER = 4201, 4202
STATES = st.sampled_from(list(StagingState))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("staged"), st.booleans(), st.integers(1, 5), STATES),
        st.tuples(st.just("announced"), st.booleans(), st.integers(1, 5), st.none()),
        st.tuples(st.just("looked"), st.booleans(), st.just(0), st.none()),
        st.tuples(st.just("removed"), st.booleans(), st.integers(1, 5), st.none()),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=30)
@given(STEPS)
def test_whoever_changes_nodes_in_whatever_order_the_grid_is_the_catalog(
    steps: list[tuple[str, bool, int, StagingState | None]],
) -> None:
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[str, bool, int, StagingState | None]]) -> None:
    with TemporaryDirectory() as place:
        url = f"sqlite://{place}/catalog.db"
        async with opened(url) as own, opened(url) as others:
            job = await announced(others, "n[1-4]")
            grids = JobGrids(own)
            async with grids.using(job) as kept:
                for what, by_us, number, state in steps:
                    catalog = own if by_us else others
                    match what:
                        case "staged" if state is not None:
                            await staged(catalog, job, f"n{number}", state)
                        case "announced":
                            nodes = "" if number == 5 else f"n[1-{number + 1}]"
                            job = await announced(catalog, nodes)
                        case "removed":  # as it was kept long enough: then a new run of the id
                            found = await others.stagings.get(f"17/n{number}")
                            if found is not None:
                                await others.stagings.remove(found.key, found.version)
                            job = await announced(catalog, "n[1-4]")
                        case _:
                            grid = await grids.current(kept, 0.0)
                            assert grid.letters.decode() == await letters_of(others)
                grid = await grids.current(kept, 0.0)
                assert grid.letters.decode() == await letters_of(others)
                assert grid.is_of(job)
            await grids.stop()


@pytest.fixture
async def two(tmp_path: Path, catalog_url: str) -> AsyncIterator[Pair]:
    async with pair(tmp_path, catalog_url) as running:
        yield running


async def test_a_job_is_followed_at_one_gateway_while_others_write_it(
    two: Pair, catalog: Catalog
) -> None:
    job = await announced(catalog, "n[1-50],m1", uid=OWNER)
    await staged(catalog, job, "n2", StagingState.STAGED)
    token = two.token(OWNER)
    async with following(two.b, "/jobs/17/events", token=token) as stream:
        grid = (await stream.until("grid")).data
        assert grid["hostlist"] == "n[1-50],m1"
        letters = list(grid["letters"])
        assert "".join(letters) == "PS" + "P" * 49
        live = (await stream.until("job")).data
        assert live["job"]["counts"]["STAGED"] == 1
        assert live["troubled"] == []
        await staged(catalog, job, "n50", StagingState.IN_PLACE)
        await staged(catalog, job, "m1", StagingState.FAILED)
        while "".join(letters) != "PS" + "P" * 47 + "IF":
            change = (await stream.until("change")).data
            for place, letter in zip(change["at"], change["letters"], strict=True):
                letters[place] = letter
        while not (live := (await stream.until("job")).data)["troubled"]:
            pass
        [trouble] = live["troubled"]
        assert (trouble["node"], trouble["failure"]["code"]) == ("m1", "no_space")
        # Much of it at once is told as a whole.
        for number in range(1, 51):
            await staged(catalog, job, f"n{number}", StagingState.RELEASED)
        await over(catalog)
        last = None
        while (told := await stream.next()) is not None:
            last = told
        assert last is not None
        assert last.kind == "job"
        assert last.data["job"]["counts"]["RELEASED"] == 50
        assert last.data["job"]["released_at"] is not None
    said = await two.a.bearer(token, "/jobs/17/grid")
    assert said.body["letters"] == "R" * 50 + "F"


async def test_an_id_that_is_announced_anew_is_another_grid_and_may_be_anothers(
    two: Pair, catalog: Catalog
) -> None:
    job = await announced(catalog, "n[1-3]", uid=OWNER)
    await staged(catalog, job, "n1", StagingState.STAGED)
    async with following(two.a, "/jobs/17/events", token=two.token(OWNER)) as stream:
        assert (await stream.until("grid")).data["letters"] == "SPP"
        again = await announced(catalog, "n[1-3]", uid=OWNER)
        assert (await stream.until("grid")).data["letters"] == "PPP"
        await staged(catalog, again, "n3", StagingState.LOST)
        assert (await stream.until("change")).data == {"at": [2], "letters": "L"}
        await announced(catalog, "n[1-9]", uid=STRANGER)
        while (told := await stream.next()) is not None:
            assert "n[1-9]" not in str(told.data)


async def test_grids_are_for_the_jobs_owner_and_admins_and_have_an_etag(
    two: Pair, catalog: Catalog
) -> None:
    job = await announced(catalog, "n[1-3]", uid=OWNER)
    for token, status in (
        (two.token(OWNER), 200),
        (two.token(0, Scope.ADMIN), 200),
        (two.token(STRANGER), 404),
        (None, 404),
    ):
        for what in ("grid", "events"):
            async with following(two.a, f"/jobs/17/{what}", token=token) as stream:
                assert stream.response.status == status
    asking = {"authorization": f"Bearer {two.token(OWNER)}"}
    first = await two.a.ask("/jobs/17/grid", **asking)
    assert first.body == {"job_id": "17", "hostlist": "n[1-3]", "letters": "PPP"}
    asking["if_none_match"] = first.headers["ETag"]
    assert (await two.a.ask("/jobs/17/grid", **asking)).status == 304
    await staged(catalog, job, "n3", StagingState.STAGED)

    async def other() -> bool:
        said = await two.a.ask("/jobs/17/grid", **asking)
        return said.status == 200 and said.body["letters"] == "PPS"

    await eventually(other, within=5)


async def test_few_grids_are_kept_and_only_for_a_while(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_grids, "MOST_NODES", 10)
    monkeypatch.setattr(job_grids, "LINGER_SECONDS", 0.05)
    grids = JobGrids(catalog)
    jobs = [await announced(catalog, "n[1-4]", job=f"{number}") for number in range(3)]
    async with grids.using(jobs[0]) as kept:
        async with grids.using(jobs[1]):
            with pytest.raises(TooManyFollowersError):
                async with grids.using(jobs[2]):
                    pass
        async with grids.using(jobs[2]):  # the idle one has made room
            assert len(grids) == 2
        await eventually(lambda: len(grids) == 1, within=5)
        assert (await grids.current(kept, 0)).letters == b"PPPP"
    await eventually(lambda: len(grids) == 0, within=5)
    await grids.stop()


class Overtaken(JobViews):
    """Whoever was let in is overtaken: the id is announced as another user's job."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__(catalog)
        self.catalog = catalog

    async def get(self, job_id: str, principal: Principal) -> JobRecord:
        job = await super().get(job_id, principal)
        if not principal.admin:
            await announced(self.catalog, "secret[1-9]", uid=BOB.uid)
        return job


async def test_a_grid_that_became_anothers_while_it_was_asked_for_is_not_shown(
    catalog: Catalog,
) -> None:
    await announced(catalog, "n[1-3]", uid=ADA.uid)
    grids = JobGrids(catalog)
    stream = JobStream(grids, Overtaken(catalog))
    assert b"n[1-3]" in (await stream.grid("17", ADMIN))[0]
    with pytest.raises(NotFoundError):
        await stream.grid("17", ADA)
    await stream.stop()
    await grids.stop()
