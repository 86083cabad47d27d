"""Shifter's wire against a real gateway: the bytes that its C client sends and depends on."""

import pytest

from tests.support.images import Pusher, build_image, layer_of
from tests.support.shifter_wire import (
    CONFIG,
    POLLED,
    Wire,
    check_form,
    escaped,
    image_path,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIELDS = {
    "id", "system", "itype", "tag", "status", "userACL", "groupACL",
    "ENV", "ENTRY", "WORKDIR", "LABELS", "last_pull", "status_message",
}  # fmt: skip


async def test_a_pull_is_posted_again_until_it_is_ready(wire: Wire) -> None:
    reference = wire.push("poll")
    first = await wire.ask("POST", image_path("pull", reference))
    check_form(first)
    assert first.body["status"] in POLLED
    assert set(first.body) == FIELDS
    assert first.body["tag"] == [reference]

    record = await wire.pulled(reference)
    assert record["status"] == "READY"
    again = await wire.ask("POST", image_path("pull", reference))
    assert again.body == {**record, "last_pull": again.body["last_pull"]}, "READY stays READY"
    assert b'"status": "READY"' in again.content, "as scripts look for it"


async def test_lookup_answers_with_a_whole_record(wire: Wire) -> None:
    reference = wire.push("whole")
    pulled = await wire.pulled(reference)
    answer = await wire.ask("GET", image_path("lookup", reference))
    check_form(answer)
    assert answer.body == pulled
    assert set(answer.body) == FIELDS
    expected = {
        "system": "cluster", "itype": "docker", "tag": [reference], "status": "READY",
        "userACL": [], "groupACL": [], "ENV": CONFIG["Env"], "ENTRY": CONFIG["Entrypoint"],
        "WORKDIR": "/srv", "LABELS": "MISSING", "status_message": "",
    }  # fmt: skip
    assert {key: answer.body[key] for key in expected} == expected
    assert (wire.site.images / f"{answer.body['id']}.squashfs").exists()
    stamp = answer.content.partition(b'"last_pull": ')[2].partition(b",")[0]
    assert b"." in stamp, "an integer is taken for 1970"


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("escape", [True, False])
async def test_a_path_may_be_written_in_several_ways(wire: Wire, end: str, escape: bool) -> None:
    reference = wire.push("written")
    await wire.pulled(reference)
    tag = escaped(reference) if escape else reference
    answer = await wire.ask("GET", f"/api/lookup/cluster/docker/{tag}{end}")
    check_form(answer)
    assert answer.body["tag"] == [reference]
    answer = await wire.ask("POST", f"/api/pull/cluster/docker/{tag}{end}")
    assert answer.body["status"] == "READY"
    answer = await wire.ask("GET", f"/api/list/cluster{end}")
    assert reference in [tag for image in answer.body["list"] for tag in image["tag"]]


async def test_an_id_can_be_looked_up(wire: Wire) -> None:
    pulled = await wire.pulled(wire.push("by-id"))
    for itype in ("id", "docker"):
        answer = await wire.ask("GET", f"/api/lookup/cluster/{itype}/{pulled['id']}/")
        check_form(answer)
        assert answer.body["id"] == pulled["id"]


async def test_a_digest_is_a_reference_too(wire: Wire) -> None:
    image = build_image([layer_of({"etc/motd": b"pinned"})])
    Pusher(wire.registry.url).push(image, "team/app", "pinned")
    reference = f"{wire.registry.host}/team/app@{image.digest}"
    assert (await wire.pulled(reference))["status"] == "READY"
    answer = await wire.ask("GET", image_path("lookup", reference))
    assert answer.body["tag"] == [reference]


async def test_several_tags_of_one_image_are_one_record(wire: Wire) -> None:
    references = [wire.push(tag, b"the same") for tag in ("same1", "same2")]
    ids = {(await wire.pulled(reference))["id"] for reference in references}
    listed = (await wire.ask("GET", "/api/list/cluster/")).body["list"]
    found = [image for image in listed if image["id"] in ids]
    assert [sorted(image["tag"]) for image in found] == [sorted(references)]


async def test_a_failed_pull_is_told_once_and_then_tried_again(wire: Wire) -> None:
    reference = wire.reference("later")
    failed = await wire.pulled(reference)
    assert failed["status"] == "FAILURE"
    assert "later" in str(failed["status_message"])
    wire.push("later")
    again = await wire.ask("POST", image_path("pull", reference))
    assert again.body["status"] in POLLED, f"at once, not after minutes: {again.body}"
    assert (await wire.pulled(reference))["status"] == "READY"


async def test_the_queue_has_what_is_not_ready(wire: Wire) -> None:
    await wire.pulled(wire.push("done"))
    await wire.pulled(wire.reference("absent"))
    answer = await wire.ask("GET", "/api/queue/cluster/")
    check_form(answer)
    assert {"status": "FAILURE", "image": wire.reference("absent")} in answer.body["list"]
    assert wire.reference("done") not in [entry["image"] for entry in answer.body["list"]]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/lookup/cluster/docker/nobody%2Fhas%3Athis/"),
        ("GET", f"/api/lookup/cluster/id/{'0' * 64}/"),
        ("GET", "/api/lookup/cluster/id/short/"),
        ("GET", "/api/lookup/cluster/custom/load_test%3Av1/"),
        ("GET", "/api/lookup/cluster/local/%2Ftmp/"),
        ("GET", "/api/lookup/cluster/what/x/"),
        ("GET", "/api/lookup/cluster/docker/UPPER%20case/"),
        ("GET", "/api/lookup/elsewhere/docker/alpine/"),
        ("GET", "/api/lookup/cluster/"),
        ("GET", "/api/list/elsewhere/"),
        ("GET", "/api/list/cluster/docker/foo/"),
        ("GET", "/api/queue/elsewhere/"),
        ("GET", "/api/expire/cluster/docker/nobody%2Fhas%3Athis/"),
        ("GET", f"/api/expire/cluster/id/{'0' * 64}/"),
        ("GET", "/api/autoexpire/elsewhere/"),
        ("GET", "/api/metrics/elsewhere/"),
        ("POST", "/api/pull/cluster/custom/x/"),
        ("POST", "/api/pull/cluster/id/x/"),
        ("POST", "/api/pull/elsewhere/docker/alpine/"),
        ("POST", "/api/doimport/cluster/custom/x/"),
        ("GET", "/api/pull/cluster/docker/alpine/"),
        ("GET", "/api/nothing/"),
    ],
)
async def test_what_is_not_there_is_a_404_in_the_wires_form(
    wire: Wire, method: str, path: str
) -> None:
    answer = await wire.ask(method, path)
    check_form(answer, 404)
    assert set(answer.body) == {"status", "error", "message"}
    assert answer.body["status"] == 404
    assert answer.body["error"]
    assert answer.body["message"].startswith("Not Found: /api/")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"allowed_uids": "ada"}', b'{"allowed_uids": 7}'])
async def test_a_wrong_body_is_told(wire: Wire, body: bytes) -> None:
    answer = await wire.ask("POST", image_path("pull", wire.reference("whatever")), body)
    check_form(answer, 404)
    assert "allowed_uids" in answer.body["error"]


async def test_rest_v1_keeps_its_own_errors(wire: Wire) -> None:
    answer = await wire.public("GET", "/api/v1/images/cluster/docker/nobody%2Fhas%3Athis")
    assert (answer.status, answer.header("Content-Type")) == (404, ["application/problem+json"])
