"""`dray doctor`: what it finds, what it advises, and when it ends with 1."""

import json
import os
import shutil
import stat
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from cli import doctor, doctor_gateways, doctor_machine, doctor_site
from cli.doctor import Wish
from cli.findings import Finding, Verdict
from shared.api import (
    DeadLettersView,
    DeadLetterView,
    NodesView,
    NodeView,
    QueueView,
    SystemsView,
    Worry,
)
from shared.api.account import WhoAmI
from shared.states import State
from tests.support.ports import free_port
from tests.support.scripted_gateway import (
    Reply,
    Script,
    problem,
    says,
    scripted_agent,
)
from tests.support.views import NOW, pull_view

Served = tuple[str, Script]
ME = WhoAmI(name="ada", uid=7, gids=(7,), scopes=("read", "pull"), via="munge")


@pytest.fixture
def well(served: Served) -> Served:
    """A gateway with which all is well."""
    _, script = served
    alive = json.dumps({"status": "ok", "version": version("dray")})
    script.on("GET /livez", Reply(alive.encode()))
    script.on("GET /readyz", Reply(b'{"status": "ok", "checks": {"catalog": "ok"}}'))
    script.on("GET /api/v1/whoami", says(ME))
    script.on("GET /api/v1/systems", says(SystemsView(items=("daint",))))
    script.on("GET /api/v1/overview", Reply(b'{"worries": []}'))
    script.on("GET /api/v1/queue", says(QueueView(items=())))
    script.on("GET /api/v1/admin/dead-letters", says(DeadLettersView(items=())))
    script.on("GET /api/v1/nodes", says(_nodes(datetime.now(UTC))))
    return served


def _nodes(seen: datetime) -> NodesView:
    node = NodeView(
        node="nid1",
        system="daint",
        kernel="6.1",
        mounter="loop",
        codecs=("zstd",),
        mounts=0,
        seen_at=seen,
    )
    return NodesView(items=(node,))


def _found(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {finding.about: finding for finding in findings}


def test_where_all_is_well_nothing_is_broken(well: Served) -> None:
    found = _found(doctor_gateways.examined(well[0]))
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}
    about_site = {"systems", "site", "queue", "events", "nodes"}
    assert found.keys() == {"gateway", "version", "clock", "identity"} | about_site
    assert found["identity"].text == "you are ada, by munge (you may: read, pull)"


def test_each_gateway_is_asked_for_itself(well: Served) -> None:
    url = f"http://127.0.0.1:{free_port()},{well[0]}"
    findings = list(doctor_gateways.examined(url))
    gateways = [each.verdict for each in findings if each.about == "gateway"]
    assert gateways == [Verdict.BROKEN, Verdict.OK]
    assert "Connection refused" in findings[0].text
    assert "dray up" in findings[0].advice
    assert _found(findings)["systems"].text == "daint"


def test_a_gateway_that_cannot_work_says_what_it_lacks(well: Served) -> None:
    url, script = well
    body = b'{"status": "unavailable", "checks": {"catalog": "no database", "bus": "ok"}}'
    script.on("GET /readyz", Reply(body, 503))
    found = _found(doctor_gateways.examined(url))["gateway"]
    assert found.verdict is Verdict.BROKEN
    assert "catalog: no database" in found.text
    assert "bus" not in found.text


@pytest.mark.parametrize(
    "reply", [Reply(b"<html>", 200, "text/html"), Reply(b"[" * 100_000), problem(404, "x", "y")]
)
def test_a_stranger_is_no_gateway(well: Served, reply: Reply) -> None:
    url, script = well
    script.on("GET /livez", reply)
    found = _found(doctor_gateways.examined(url))
    assert found["gateway"].verdict is Verdict.BROKEN
    assert "no gateway of Dray" in found["gateway"].text


def test_clocks_that_are_apart_are_told_as_far_as_they_matter() -> None:
    for apart, verdict in ((2, Verdict.OK), (30, Verdict.NOTE), (-300, Verdict.BROKEN)):
        then = datetime.now(UTC) + timedelta(seconds=apart)
        date = {"date": format_datetime(then, usegmt=True)}
        [found] = doctor_gateways._clock(date)
        assert found.verdict is verdict
    assert list(doctor_gateways._clock({"date": "yesterday"})) == []


def test_who_is_unknown_learns_how_to_be_known_and_another_version_is_noted(well: Served) -> None:
    url, script = well
    nobody = WhoAmI(name="nobody", uid=None, gids=(), scopes=("read",), via="nobody")
    script.on("GET /api/v1/whoami", says(nobody))
    script.on("GET /livez", Reply(b'{"status": "ok", "version": "0.0.1"}'))
    found = _found(doctor_gateways.examined(url))
    assert found["identity"].verdict is Verdict.NOTE
    assert "DRAY_TOKEN_FILE" in found["identity"].advice
    assert found["version"].verdict is Verdict.NOTE
    script.on("GET /api/v1/whoami", problem(401, "token_expired", "your token is too old"))
    found = _found(doctor_gateways.examined(url))
    assert found["identity"].verdict is Verdict.BROKEN
    assert "too old" in found["identity"].text


@pytest.mark.parametrize(
    ("state", "service"), [(State.INIT, "converter"), (State.TRANSFER, "distributor")]
)
def test_pulls_that_nobody_works_on_point_at_who_should(
    well: Served, state: State, service: str
) -> None:
    url, script = well
    waiting = pull_view(state, updated_at=NOW)
    script.on("GET /api/v1/queue", says(QueueView(items=(waiting,))))
    script.on("GET /api/v1/nodes", says(_nodes(NOW)))
    found = _found(doctor_gateways.examined(url))
    assert found["queue"].verdict is Verdict.NOTE
    assert service in found["queue"].advice
    assert "1 of 1 node silent" in found["nodes"].text


def test_what_the_dashboard_is_red_for_is_broken_here_too(well: Served) -> None:
    url, script = well
    no_room = Worry(code="image_directory_low", level="critical", message="1 GiB left: make room.")
    slow = Worry(code="catalog_slow", level="warning", message="It takes 2 s: see its disk.")
    dead = Worry(code="dead_letters", level="warning", message="1 event has failed for good.")
    body = json.dumps({"worries": [each.model_dump() for each in (no_room, slow, dead)]})
    script.on("GET /api/v1/overview", Reply(body.encode()))
    found = [each for each in doctor_gateways.examined(url) if each.about == "site"]
    assert [each.verdict for each in found] == [Verdict.BROKEN, Verdict.NOTE]
    assert found[0].text == no_room.message
    assert "image_directory_low" in found[0].advice


def test_nodes_of_all_pages_are_counted(well: Served) -> None:
    url, script = well
    first = _nodes(datetime.now(UTC)).model_copy(update={"next": "nid 1"})
    late = _nodes(NOW).items[0].model_copy(update={"node": "nid2"})
    script.on("GET /api/v1/nodes", says(first))
    script.on("GET /api/v1/nodes?after=nid%201", says(NodesView(items=(late,))))
    found = _found(doctor_gateways.examined(url))
    assert "1 of 2 nodes silent" in found["nodes"].text
    assert "nid2" in found["nodes"].text


def test_what_is_not_for_everybody_is_left_out(well: Served) -> None:
    url, script = well
    script.on("GET /api/v1/nodes", problem(403, "not_allowed", "no"))
    script.on("GET /api/v1/admin/dead-letters", problem(403, "not_allowed", "no"))
    assert not _found(doctor_gateways.examined(url)).keys() & {"nodes", "events"}


def test_an_operator_is_told_of_events_that_failed_for_good(well: Served) -> None:
    url, script = well
    letter = DeadLetterView(
        id="1", queue="gateway.events", reason="rejected", deliveries=4, died_at=None, body="{}"
    )
    script.on("GET /api/v1/admin/dead-letters", says(DeadLettersView(items=(letter,))))
    found = _found(doctor_gateways.examined(url))["events"]
    assert (found.verdict, found.text) == (Verdict.NOTE, "1 event failed for good")
    assert "dray queue dead" in found.advice


def test_an_agent_that_is_named_must_be_there(tmp_path: Path) -> None:
    found = _found(doctor_machine.examined(tmp_path / "absent.sock"))
    assert found["agent"].verdict is Verdict.BROKEN
    assert "DRAY_SOCKET" in found["agent"].advice


@pytest.mark.parametrize(("connected", "verdict"), [(True, Verdict.OK), (False, Verdict.BROKEN)])
def test_an_agent_is_told_with_how_it_mounts(
    tmp_path: Path, connected: bool, verdict: Verdict
) -> None:
    path = tmp_path / "s"
    status = {"node": "nid1", "system": "daint", "mounter": "loop", "bus_connected": connected}
    with scripted_agent(str(path)) as script:
        script.on("GET /v1/status", Reply(json.dumps(status).encode()))
        found = _found(doctor_machine.examined(path))["agent"]
    assert found.verdict is verdict
    assert "nid1 of daint, mounts with loop" in found.text


def test_namespaces_are_tried_without_changing_this_process(tmp_path: Path) -> None:
    before = Path("/proc/self/ns/mnt").readlink()
    found = _found(doctor_machine.examined(None))
    assert found["namespaces"].text
    assert Path("/proc/self/ns/mnt").readlink() == before


def test_settings_are_checked_with_all_that_they_name(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "dray.yaml"
    config.write_text(
        f"data_dir: {tmp_path}/data\n"
        f"bus: {{url: 'amqp://user:secret@127.0.0.1:{port}/'}}\n"
        f"catalog: {{url: 'mongodb://user:secret@127.0.0.1:{port},127.0.0.1/dray'}}\n"
        f"systems: {{daint: {{image_dir: {tmp_path}/images}}}}\n"
    )
    findings = list(doctor_site.examined(config))
    found = _found(findings)
    assert found["settings"].verdict is Verdict.OK
    assert found["images daint"].verdict is Verdict.OK
    assert found["bus"].text == f"127.0.0.1:{port} cannot be reached: Connection refused"
    assert [each.text.split()[0] for each in findings if each.about == "catalog"] == [
        f"127.0.0.1:{port}",
        "127.0.0.1:27017",
    ]
    assert "secret" not in str(findings)
    config.write_text("bus: {ulr: x}\n")
    [broken] = doctor_site.examined(config)
    assert broken.verdict is Verdict.BROKEN
    assert "ulr" in broken.text


def test_a_squashfuse_whose_device_is_closed_to_the_user_is_not_called_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    for usable, verdict in ((True, Verdict.OK), (False, Verdict.NOTE)):
        monkeypatch.setattr(os, "access", lambda path, _, usable=usable: usable)
        found = doctor_machine.squashfuse()
        assert found.verdict is verdict
        assert ("/dev/fuse" in found.text) is not usable


def test_a_directory_that_services_may_not_write_to_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor_machine.room("data", tmp_path / "a/b", must_write=True).verdict is Verdict.OK
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.geteuid() == 0:  # whom no mode keeps out
        monkeypatch.setattr(os, "access", lambda *_: False)
    found = doctor_machine.room("data", tmp_path / "a", must_write=True)
    assert found.verdict is Verdict.BROKEN
    tmp_path.chmod(stat.S_IRWXU)


def test_what_is_broken_ends_with_1_and_programs_get_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = Wish(f"http://127.0.0.1:{free_port()}", None, None)
    assert doctor.doctor(wish, json=False) == 1
    told = capsys.readouterr().out
    assert told.startswith("broken  gateway ")
    assert told.endswith(" broken.\n")
    assert doctor.doctor(wish, json=True) == 1
    [first, *_] = json.loads(capsys.readouterr().out)["items"]
    assert first["verdict"] == "broken"
    assert set(first) == {"about", "verdict", "text", "advice"}
