"""Imports over Shifter's wire: what its users' scripts send with curl, and what comes back."""

import json
from pathlib import Path

import pytest

from tests.support.conditions import eventually
from tests.support.disks import MIB, converted, file_system
from tests.support.images import build_image, layer_of
from tests.support.imports import docker_archive, owned
from tests.support.shifter_wire import CONFIG, IMPORTER, POLLED, Raw, Wire, as_client, check_form
from tests.support.users import let_everybody_in

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.root]

OTHER = 4204
IMPORT = "/api/doimport/cluster/custom/load_test%3Av1/"
LOOKUP = "/api/lookup/cluster/custom/load_test%3Av1/"


async def as_user(
    wire: Wire, uid: int, method: str, path: str, body: object = None, kind: str | None = None
) -> Raw:
    content = b"" if body is None else json.dumps(body).encode()
    request = as_client(wire.site.url, method, path, wire.munged.credential(uid=uid), content)
    if kind is not None:
        request = request.replace(b"Content-type: application/json", kind.encode())
    return await wire.send(request)


async def ended(wire: Wire, uid: int, path: str, body: object) -> Raw:
    """Ask again and again, as for a pull."""
    answer = await as_user(wire, uid, "POST", path, body)

    async def there() -> bool:
        nonlocal answer
        answer = await as_user(wire, uid, "POST", path, body)
        return answer.body["status"] not in POLLED

    await eventually(there, within=60)
    return answer


async def test_an_import_is_posted_until_it_is_ready_and_then_looked_up(
    wire: Wire, tmp_path: Path
) -> None:
    let_everybody_in(tmp_path)
    image = build_image([layer_of({"etc/motd": b"imported"})], run=CONFIG)
    path = docker_archive(tmp_path / "app.tar", image, IMPORTER)
    body = {"filepath": str(path), "format": "docker-archive", "allowed_uids": str(OTHER)}
    first = await as_user(
        wire, IMPORTER, "POST", IMPORT, body, "Content-Type: application/x-www-form-urlencoded"
    )
    check_form(first)
    assert first.body["status"] in POLLED
    assert (first.body["itype"], first.body["tag"]) == ("custom", ["load_test:v1"])
    answer = await ended(wire, IMPORTER, IMPORT, body)
    check_form(answer)
    assert answer.body["status"] == "READY", answer.body
    assert b'"status": "READY"' in answer.content
    assert answer.body["userACL"] == [IMPORTER, OTHER]
    assert answer.body["ENV"] == CONFIG["Env"]
    for uid in (IMPORTER, OTHER):
        found = await as_user(wire, uid, "GET", LOOKUP)
        check_form(found)
        assert found.body["id"] == answer.body["id"]
        listed = (await as_user(wire, uid, "GET", "/api/list/cluster/")).body["list"]
        assert ("custom", ["load_test:v1"]) in [(each["itype"], each["tag"]) for each in listed]
    check_form(await as_user(wire, 4299, "GET", LOOKUP), 404)
    expire = LOOKUP.replace("lookup", "expire")
    assert (await as_user(wire, OTHER, "GET", expire)).body == {"status": False}
    assert (await as_user(wire, IMPORTER, "GET", expire)).body == {"status": True}
    check_form(await as_user(wire, IMPORTER, "GET", LOOKUP), 404)


async def test_a_failure_is_told_once_and_another_file_is_another_import(
    wire: Wire, tmp_path: Path
) -> None:
    let_everybody_in(tmp_path)
    path = "/api/doimport/cluster/custom/later/"
    wrong = {"filepath": str(tmp_path / "absent.tar"), "format": "auto"}
    failed = await ended(wire, IMPORTER, path, wrong)
    assert failed.body["status"] == "FAILURE"
    assert "absent.tar" in failed.body["status_message"]
    image = build_image([layer_of({"etc/motd": b"later"})])
    right = {"filepath": str(docker_archive(tmp_path / "a.tar", image, IMPORTER))}
    assert (await ended(wire, IMPORTER, path, right)).body["status"] == "READY"


async def test_a_disk_s_format_is_a_word_of_the_wire(wire: Wire, tmp_path: Path) -> None:
    let_everybody_in(tmp_path)
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/motd").write_text("of a disk")
    plain = file_system(tmp_path / "plain", "ext4", "-d", tree, size=2 * MIB)
    disk = owned(converted(plain, tmp_path / "disk.qcow2", "qcow2"), IMPORTER)
    path = "/api/doimport/cluster/custom/machine/"
    body = {"filepath": str(disk), "format": "qcow2"}
    answer = await ended(wire, IMPORTER, path, body)
    assert answer.body["status"] == "READY", answer.body


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"format": "squashfs"}, "filepath"),
        ({"filepath": "relative.tar"}, "absolute"),
        ({"filepath": "/a\0b"}, "absolute"),
        ({"filepath": "/a", "format": "floppy"}, "docker-archive"),
        ({"filepath": "/a", "allowed_uids": "ada"}, "allowed_uids"),
        ([], "filepath"),
    ],
)
async def test_what_is_wrong_with_a_request_is_said(wire: Wire, body: object, says: str) -> None:
    answer = await as_user(wire, IMPORTER, "POST", IMPORT, body)
    check_form(answer, 404)
    assert says in answer.body["error"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (IMPORT.replace("custom", "docker"), "custom"),
        (IMPORT.replace("load_test", "..%2Fx"), "name"),
        (IMPORT.replace("cluster", "elsewhere"), "elsewhere"),
        (IMPORT.replace("doimport", "pull"), "import"),
    ],
)
async def test_what_is_no_import_is_said(wire: Wire, path: str, says: str) -> None:
    answer = await as_user(wire, IMPORTER, "POST", path, {"filepath": "/a"})
    check_form(answer, 404)
    assert says in answer.body["error"]


async def test_only_whom_the_site_names_may_import(wire: Wire) -> None:
    body = json.dumps({"filepath": "/etc/hostname", "format": "auto"}).encode()
    refused = await as_user(wire, OTHER, "POST", IMPORT, {"filepath": "/etc/hostname"})
    check_form(refused, 404)
    assert "imports.allow" in refused.body["error"]
    nobody = await wire.send(as_client(wire.site.url, "POST", IMPORT, body=body))
    check_form(nobody, 404)
    assert "who you are" in nobody.body["error"]
