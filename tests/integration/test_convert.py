"""`dray convert` as a process: a real registry, archives, users, and what is wrong with them."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.image.recipe import PackOptions
from tests.support.archives import archive_of, docker_members, layout_members, write_tree
from tests.support.dray_convert import Dray, dray_convert, left_beside, partials
from tests.support.images import Pusher, build_image, layer_from_tar
from tests.support.overlay_model import expected_rows
from tests.support.packing import directory, hard_link, member, symlink, tar_of
from tests.support.registry import DebianRegistry
from tests.support.trees import image_rows
from tests.support.users import (
    AS_NOBODY,
    let_everybody_in,
    ordinary_environment,
    ordinary_python,
)

KEEP = PackOptions(
    keep_owners=True,
    keep_setuid=True,
    keep_devices=True,
    xattrs=("user.", "trusted.", "security.", "security.capability"),
)
KEEPING = ("--owners", "image", "--setuid", "keep", "--devices", "keep", "--xattrs", "all")
ATTRIBUTES = {
    "SCHILY.xattr.security.capability": "\1\0\0\2\0 " + "\0" * 14,
    "SCHILY.xattr.trusted.t": "u",
    "SCHILY.xattr.user.a": "b",
}
LOWER = tar_of(
    directory("d", mode=0o1777),
    ("d/gone", b"x" * 300_000),
    ("d/kept", bytes(range(256)) * 2000),
    (member("suid", mode=0o4755, uid=1000, gid=7), b"s"),
    (member("capable", pax_headers=ATTRIBUTES), b"c"),
    member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    symlink("link", "d/kept"),
    hard_link("again", "d/kept"),
    member("pipe", tarfile.FIFOTYPE),
)
UPPER = tar_of(("d/.wh.gone", b""), ("link", b"a file now"), ("b\udcff", b"no UTF-8"))
TARS = (LOWER, UPPER, LOWER)
IMAGE = build_image([layer_from_tar(LOWER), layer_from_tar(UPPER, "zstd"), layer_from_tar(LOWER)])
FOR_DOCKER = build_image([layer_from_tar(tar, "none") for tar in TARS], kind="docker")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRegistry]:
    with DebianRegistry(tmp_path_factory.mktemp("registry")) as registry:
        Pusher(registry.url).push(IMAGE, "group/tool", "1.0")
        yield registry


@pytest.fixture
def reference(registry: DebianRegistry) -> str:
    return f"docker:{registry.host}/group/tool:1.0"


@pytest.fixture
def dray(tmp_path: Path) -> Dray:
    return dray_convert(tmp_path)


def test_all_of_an_image_comes_through(reference: str, dray: Dray, tmp_path: Path) -> None:
    out = tmp_path / "out.sqfs"
    done = dray(reference, out, *KEEPING)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 layers (0 re-used)" in done.stdout
    assert image_rows(out) == expected_rows(TARS, KEEP)
    first = out.read_bytes()
    again = dray(reference, out, *KEEPING, "--json", "--threads", "1")
    told = json.loads(again.stdout)
    assert (told["layers"], told["layers_reused"]) == (2, 2)
    assert told["size"] == len(first)
    assert told["source"]["manifest"] == IMAGE.digest
    assert out.read_bytes() == first
    assert left_beside(out) == []


def test_the_defaults_are_those_of_a_system(reference: str, dray: Dray, tmp_path: Path) -> None:
    out = tmp_path / "out.sqfs"
    done = dray(reference.removeprefix("docker:"), out, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert image_rows(out) == expected_rows(TARS, PackOptions())


def test_options_decide(reference: str, dray: Dray, tmp_path: Path) -> None:
    out = tmp_path / "out.sqfs"
    how = ("--compression", "gzip", "--level", "6", "--block-size", "64K")
    done = dray(reference, out, *how, "--xattrs", "user.*,security.capability", "--json")
    told = json.loads(done.stdout)
    assert (told["compression"], told["block_size"]) == ("gzip", 65536)
    options = PackOptions(block_size=65536, xattrs=("security.capability", "user."))
    assert image_rows(out) == expected_rows(TARS, options)
    assert dray(reference, out, "--xattrs", "none", "-q").returncode == 0
    assert image_rows(out) == expected_rows(TARS, PackOptions(xattrs=()))


def test_a_layout_gives_what_the_registry_gives(reference: str, dray: Dray, tmp_path: Path) -> None:
    out = tmp_path / "out.sqfs"
    assert dray(reference, out, *KEEPING).returncode == 0
    expected = out.read_bytes()
    members = layout_members({"1.0": IMAGE})
    write_tree(tmp_path / "layout", members)
    (tmp_path / "image.tar").write_bytes(archive_of(members))
    for origin in ("oci:layout:1.0", "oci-archive:image.tar:1.0", "layout", "./image.tar"):
        out.unlink()
        done = dray(origin, out, *KEEPING, "--cache", tmp_path / "other", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert out.read_bytes() == expected


def test_an_archive_of_docker_save_has_the_same_tree(dray: Dray, tmp_path: Path) -> None:
    out = tmp_path / "out.sqfs"
    (tmp_path / "saved.tar").write_bytes(archive_of(docker_members({"tool:1": FOR_DOCKER})))
    done = dray(f"docker-archive:{tmp_path}/saved.tar:tool:1", out, *KEEPING)
    assert (done.returncode, done.stderr) == (0, "")
    assert image_rows(out) == expected_rows(TARS, KEEP)


def test_a_layer_that_lies_in_an_archive_is_found_out(dray: Dray, tmp_path: Path) -> None:
    members = docker_members({"tool:1": FOR_DOCKER})
    layer = next(name for name in members if name.endswith("layer.tar"))
    members[layer] = tar_of(("evil", b"other"))
    (tmp_path / "saved.tar").write_bytes(archive_of(members))
    done = dray(tmp_path / "saved.tar", tmp_path / "out.sqfs")
    assert done.returncode == 1
    assert "diff id" in done.stderr
    assert not (tmp_path / "out.sqfs").exists()
    assert partials(tmp_path) == []


@pytest.mark.parametrize("how", ["docker-archive", "oci-archive", "oci"])
def test_what_skopeo_writes(how: str, registry: DebianRegistry, dray: Dray, tmp_path: Path) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("needs skopeo: install Debian's package skopeo")
    gzipped = build_image([layer_from_tar(tar) for tar in TARS], kind="docker")
    Pusher(registry.url).push(gzipped, "group/gzipped", "1.0")
    name = "1.0" if how == "oci" else "group/gzipped:1.0"
    target = f"{how}:{tmp_path}/it:{name}"
    source = f"docker://{registry.host}/group/gzipped:1.0"
    copy = [skopeo, "copy", "--quiet", "--src-tls-verify=false", source, target]
    subprocess.run(copy, check=True, timeout=60, capture_output=True)
    for origin in (target, f"{tmp_path}/it"):
        done = dray(origin, tmp_path / "out.sqfs", *KEEPING)
        assert (done.returncode, done.stderr) == (0, "")
        assert image_rows(tmp_path / "out.sqfs") == expected_rows(TARS, KEEP)


@pytest.mark.root
def test_an_ordinary_user_can_do_it(reference: str, dray: Dray, tmp_path: Path) -> None:
    let_everybody_in(tmp_path)
    (tmp_path / "cache").mkdir(mode=0o777)
    place = tmp_path / "own"
    place.mkdir()
    for path in (tmp_path / "cache", place):
        os.chown(path, AS_NOBODY["user"], AS_NOBODY["group"])
    out = place / "out.sqfs"
    done = dray(
        reference, out, *KEEPING, python=ordinary_python(), env=ordinary_environment(), **AS_NOBODY
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert out.stat().st_uid == AS_NOBODY["user"]
    assert image_rows(out) == expected_rows(TARS, KEEP)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("./missing.tar", "out.sqfs"), 1, "there is no missing.tar: check the path"),
        (("dir:nope", "out.sqfs"), 1, "there is no directory nope here: check its path"),
        (("Not A Name", "out.sqfs"), 2, "is not an image reference"),
        (("127.0.0.1:1/a", "out.sqfs"), 1, "nothing answers at 127.0.0.1:1"),
        (("x", "."), 2, "is a directory"),
        (("x", "/dev/null"), 2, "no regular file"),
        (("x", "none/out.sqfs"), 1, "there is no directory none"),
        (("x", "out.sqfs", "--block-size", "3K"), 2, "power of two"),
        (("x", "out.sqfs", "--block-size", "2M"), 2, "power of two"),
        (("x", "out.sqfs", "--level", "23"), 2, "levels from 1 to 22"),
        (("x", "out.sqfs", "--level", "10", "--compression", "gzip"), 2, "from 1 to 9"),
        (("x", "out.sqfs", "--xattrs", "system.posix_acl"), 2, "--xattrs: write all, none"),
        (("x", "out.sqfs", "--owners", "me"), 2, "--owners"),
        (("x", f"{'x' * 300}/out.sqfs"), 1, "name another place"),
        (("x", "-"), 2, "name the file"),
        (("x", ""), 2, "it is empty"),
        (("x", "out.sqfs", "--platform", "linux"), 2, "is no platform"),
        (("x", "out.sqfs", "--max-dead-share", "nan"), 2, "from 0 to 1"),
        (("x", "out.sqfs", "--cache", ""), 2, "it is empty"),
        (("x", "out.sqfs", "--cache", "/dev/null/x"), 1, "choose another with --cache"),
        (("x",), 2, "OUT"),
    ],
)
def test_what_is_wrong_is_one_clear_line(
    arguments: tuple[str, ...], code: int, says: str, dray: Dray, tmp_path: Path
) -> None:
    done = dray(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.sqfs").exists()


def test_a_cache_that_cannot_be_used_is_called_so(
    reference: str, dray: Dray, tmp_path: Path
) -> None:
    (tmp_path / "cache/dray").mkdir(parents=True)
    (tmp_path / "cache/dray/locks").touch()
    told = dray(reference, tmp_path / "out.sqfs").stderr
    assert ("another with --cache [" in told, "operator" in told) == (True, False)


def test_a_failure_leaves_what_was_there(dray: Dray, tmp_path: Path) -> None:
    out = tmp_path / "out.sqfs"
    out.write_bytes(b"older")
    assert dray("./missing.tar", out).returncode == 1
    assert out.read_bytes() == b"older"
    assert left_beside(out) == []


def test_codecs_that_are_missing_are_named(dray: Dray, tmp_path: Path) -> None:
    absent = "import sys, importlib.util as u; real = u.find_spec\n"
    absent += "u.find_spec = lambda n, *a: None if n == 'isal' else real(n, *a)"
    done = dray("x", tmp_path / "out.sqfs", first=absent)
    assert done.returncode == 1
    assert "pip install 'dray[codecs]'" in done.stderr


def test_a_damaged_cache_mends_itself(reference: str, dray: Dray, tmp_path: Path) -> None:
    out = tmp_path / "out.sqfs"
    assert dray(reference, out).returncode == 0
    expected = out.read_bytes()
    for pack in (tmp_path / "cache").rglob("*.pack"):
        with pack.open("r+b") as file:
            file.write(b"damaged")
    done = dray(reference, out)
    assert (done.returncode, done.stderr) == (0, "")
    assert out.read_bytes() == expected


def test_two_at_once_share_the_work(reference: str, dray: Dray, tmp_path: Path) -> None:
    outs = [tmp_path / "one.sqfs", tmp_path / "two.sqfs"]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda out: dray(reference, out, "--json"), outs))
    assert [each.returncode for each in done] == [0, 0]
    reused = sum(json.loads(each.stdout)["layers_reused"] for each in done)
    assert reused == 2
    assert outs[0].read_bytes() == outs[1].read_bytes()
