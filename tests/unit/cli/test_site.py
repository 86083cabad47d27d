"""Jobs, usage and quotas as people and programs see them."""

import json
import os
import pwd
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest

from cli import jobs, usage
from cli.errors import UsageError
from cli.gateway import Gateway
from cli.jobs import JobsWish, JobWish
from cli.tables import Style
from shared.api import (
    JobMark,
    JobMoment,
    JobPage,
    JobSummary,
    JobTimeline,
    JobView,
    QuotaLimits,
    QuotaStanding,
    QuotaView,
    StagingView,
    UsagePage,
    UsageView,
)
from shared.catalog.records import Failure, StagingState
from tests.support.scripted_gateway import Script, says
from tests.support.views import NOW, REFERENCE

Served = tuple[str, Script]
SUMMARY = JobSummary(
    job_id="4711",
    system="daint",
    images=("a" * 64,),
    hostlist="nid[1-3]",
    announced_by="slurm",
    uid=os.getuid(),
    announced_at=NOW,
    reserved_until=None,
    released_at=None,
    node_count=3,
    counts={StagingState.STAGED: 2, StagingState.FAILED: 1},
)
FAILED = StagingView(
    node="nid2",
    state=StagingState.FAILED,
    failure=Failure(code="x", message="no \x1b[2J room"),
    seconds=None,
)
STAGED = StagingView(node="nid1", state=StagingState.STAGED, failure=None, seconds=1.5)


def _job(*stagings: StagingView, following: str | None = None) -> JobView:
    return JobView(**dict(SUMMARY), nodes=stagings, next=following)


def test_jobs_are_listed_with_where_their_nodes_are(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    script.on(
        f"GET /api/v1/jobs?system=daint&uid={os.getuid()}&running=true&limit=2",
        says(JobPage(items=(SUMMARY,), next="x/1")),
    )
    script.on(
        f"GET /api/v1/jobs?system=daint&uid={os.getuid()}&running=true&after=x%2F1&limit=2",
        says(JobPage(items=(SUMMARY, SUMMARY), next="x/2")),
    )
    me = pwd.getpwuid(os.getuid()).pw_name
    wish = JobsWish("daint", me, running=True, limit=2)
    assert jobs.jobs(Gateway(url), wish, json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    shown = lines[1].split()
    assert shown[:7] == ["4711", me, "daint", "a" * 12, "nid[1-3]", "2/3", "1"]
    assert shown[-1] == "running"
    jobs.jobs(Gateway(url), wish, Style(quiet=True), json=False)
    assert capsys.readouterr().out == "4711\n4711\n"
    jobs.jobs(Gateway(url), wish, json=True)
    found = json.loads(capsys.readouterr().out)
    assert [each["job_id"] for each in found["items"]] == ["4711", "4711"]


def test_one_job_shows_the_nodes_in_trouble_and_ends_with_1(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    pages = _job(STAGED, FAILED, STAGED.model_copy(update={"node": "nid3"}))
    script.on("GET /api/v1/jobs/4711?nodes=all&limit=1000", says(pages))
    assert jobs.job(Gateway(url), JobWish("4711"), json=False) == 1
    told = capsys.readouterr().out
    assert "nodes       3: 2 staged, 1 failed" in told
    assert "after" not in told, "an earlier version's gateway does not know"
    assert [line.split() for line in told.splitlines()[-3:]] == [
        ["NODES", "COUNT", "STATE", "REASON"],
        ["nid2", "1", "FAILED", "no", "\N{REPLACEMENT CHARACTER}[2J", "room"],
        ["nid[1,3]", "2", "STAGED"],
    ]
    assert jobs.job(Gateway(url), JobWish("4711", all_nodes=True), json=False) == 1
    told = capsys.readouterr().out
    assert "nid2  FAILED         no \N{REPLACEMENT CHARACTER}[2J room" in told
    assert "nid1  STAGED  1.5 s" in told


def test_one_job_tells_how_long_after_its_announcement_nodes_and_ranks_were_there(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    moments: list[tuple[JobMoment, float]] = [
        *(("reserved", -90), ("announced", 0), ("first_node", 0.4)),
        *(("half_of_nodes", 1.2), ("all_nodes", 3), ("first_rank", 75), ("released", 99)),
    ]
    marks = tuple(
        JobMark(moment=moment, at=NOW + timedelta(seconds=after)) for moment, after in moments
    )
    timeline = JobTimeline(job_id="4711", marks=marks, arrived=(), step_seconds=0.0, staging=None)
    script.on("GET /api/v1/jobs/4711?nodes=all&limit=1000", says(_job(STAGED, FAILED)))
    script.on("GET /api/v1/jobs/4711/timeline", says(timeline))
    assert jobs.job(Gateway(url), JobWish("4711"), json=False) == 1
    assert (
        "after       first node 0.4 s, half of them 1.2 s, all nodes 3.0 s, first rank 1 min 15 s\n"
        in capsys.readouterr().out
    )


def test_a_job_without_nodes_says_what_it_holds(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    reserved = SUMMARY.model_copy(
        update={"node_count": 0, "hostlist": "", "counts": {}, "reserved_until": NOW}
    )
    view = JobView(**dict(reserved), nodes=(), next=None)
    script.on("GET /api/v1/jobs/4711?nodes=all&limit=1000", says(view))
    assert jobs.job(Gateway(url), JobWish("4711"), json=False) == 0
    told = capsys.readouterr().out
    assert "state       reserved" in told
    assert "none yet; it holds its images until" in told


def test_waiting_for_a_job_asks_until_all_nodes_have_answered(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    pending = SUMMARY.model_copy(update={"counts": {StagingState.PENDING: 3}})
    views = [JobView(**dict(pending), nodes=(), next=None), _job()]
    script.on("GET /api/v1/jobs/4711?wait=20.0", *map(says, views))
    script.on("GET /api/v1/jobs/4711?wait=19.0", says(_job()))
    script.on("GET /api/v1/jobs/4711?nodes=all&limit=1000", says(_job(STAGED)))
    wish = JobWish("4711", wait=3600)
    assert jobs.job(Gateway(url), wish, Style(quiet=True), json=False) == 1
    assert capsys.readouterr().out == "nid1\n"
    assert [asked for asked, _ in script.asked if "wait" in asked] == [
        "GET /api/v1/jobs/4711?wait=20.0"
    ] * 2


def test_all_nodes_of_a_job_are_read_page_by_page(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    path = "GET /api/v1/jobs/4711?nodes=all"
    script.on(f"{path}&limit=1000", says(_job(STAGED, following="nid1")))
    script.on(f"{path}&after=nid1&limit=1000", says(_job(FAILED)))
    assert jobs.job(Gateway(url), JobWish("4711"), json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert [node["node"] for node in found["nodes"]] == ["nid1", "nid2"]
    assert "next" not in found


@pytest.mark.parametrize(
    ("by", "line", "begins"),
    [
        ("image", {"reference": REFERENCE, "system": "daint"}, [REFERENCE, "daint"]),
        ("user", {"user": "ada", "uid": 7}, ["ada"]),
        ("day", {"period": "2026-11-21"}, ["2026-11-21"]),
    ],
)
def test_usage_is_told_by_image_user_and_day(
    served: Served,
    capsys: pytest.CaptureFixture[str],
    by: str,
    line: dict[str, object],
    begins: list[str],
) -> None:
    url, script = served
    counts = {"lookups": 12345, "pulls": 2, "jobs": 3, "last": NOW}
    values = {"by": by, "since": NOW, "until": NOW, "items": [line | counts], "next": "x"}
    page = UsagePage.model_validate(values)
    assert page.items == (UsageView.model_validate(line | counts),)
    script.on(f"GET /api/v1/usage?by={by}&limit=100", says(page))
    last = page.model_copy(update={"items": (), "next": None})
    script.on(f"GET /api/v1/usage?by={by}&after=x&limit=100", says(last))
    wish = usage.Wish(by, None, None, None, None, None, 100)
    assert usage.usage(Gateway(url), wish, Style(header=False), json=False) == 0
    assert capsys.readouterr().out.split()[: len(begins) + 3] == [*begins, "3", "12,345", "2"]


@pytest.mark.parametrize(
    ("since", "until", "told"),
    [
        (None, None, "in the 7 days before now;"),
        ("2026-11-21T09:00:00+00:00", None, "since 2026-11-21T09:00:00+00:00;"),
        (None, "2026-11-21T09:00:00+00:00", "before 2026-11-21T09:00:00+00:00;"),
    ],
)
def test_no_usage_names_the_time_that_was_asked_about(
    served: Served,
    capsys: pytest.CaptureFixture[str],
    since: str | None,
    until: str | None,
    told: str,
) -> None:
    url, script = served
    times = {
        "since": since and f"{since[:16]}:00+00:00",
        "until": until and f"{until[:16]}:00+00:00",
    }
    query = urlencode(
        {"by": "image"} | {name: at for name, at in times.items() if at} | {"limit": 100}
    )
    page = UsagePage.model_validate(
        {"by": "image", "since": NOW, "until": NOW, "items": [], "next": None}
    )
    script.on(f"GET /api/v1/usage?{query}", says(page))
    wish = usage.Wish("image", since, until, None, None, None, 100)
    assert usage.usage(Gateway(url), wish, json=False) == 0
    shown = capsys.readouterr().out
    assert told in shown
    assert "the last seconds are not counted yet" in shown


def test_times_are_ages_days_or_moments() -> None:
    week = datetime.fromisoformat(usage.instant("--since", "1w") or "")
    assert abs(datetime.now(UTC) - week - timedelta(days=7)) < timedelta(minutes=1)
    assert usage.instant("--since", "2026-11-21T09:00+02:00") == "2026-11-21T07:00:00+00:00"
    assert usage.instant("--since", None) is None


@pytest.mark.parametrize("text", ["yesterday", "", "7", "999999w", "2026-13-01"])
def test_what_is_no_time_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        usage.instant("--since", text)


def test_a_quota_says_how_much_of_how_much(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    view = QuotaView(
        limits=QuotaLimits(images=10, bytes=5_000_000, pulls=None),
        pulls=1,
        items=(
            QuotaStanding(
                system="daint", images=2, bytes=1_500_000, system_bytes=7_000_000, system_limit=None
            ),
        ),
    )
    script.on("GET /api/v1/quota", says(view))
    assert usage.quota(Gateway(url), json=False) == 0
    told = capsys.readouterr().out
    assert "2 of 10" in told
    assert "1.5 MB of 5.0 MB" in told
    assert told.endswith("Pulls of yours under way: 1\n")
