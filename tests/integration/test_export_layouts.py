"""An image as an OCI layout of one layer is the same image again, for us and for others."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.export_names import annotations
from cli.oci.compress import Compression
from cli.oci.layout import FULL_NAME, REF_NAME, Named, write_layout
from cli.oci.places import ArchivePlace, DirectoryPlace
from cli.oci.tree import NoLayerError, look_through
from shared.image.reading.inspection import read_image
from shared.image.reading.reader import SquashImage
from shared.settings.types import this_platform
from tests.support.archives import archive_of, docker_members
from tests.support.dray_convert import Dray, dray_convert
from tests.support.images import File, Link, build_image, layer_of
from tests.support.squashfs import is_root, place_image, small_tree
from tests.support.tree_files import rich_tree
from tests.support.trees import image_rows

REFERENCE = "registry.example.org/group/solver:2.1"
NAMED = Named(REFERENCE, this_platform(), annotations(REFERENCE))
KEEP_ALL = (
    *("--owners", "image", "--setuid", "keep", "--devices", "keep"),
    *("--xattrs", "all", "--level", "1"),
)
RUN = {
    "Env": ["PATH=/usr/bin", "NAME=with ünusual = signs"],
    "Entrypoint": ["/bin/tool", "--"],
    "Cmd": ["a b"],
    "WorkingDir": "/work",
    "User": "1000:7",
    "Labels": {"org.example.made": "here"},
}


def silence(_done: int, _total: int) -> None:
    return


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def dray(place: Path) -> Dray:
    return dray_convert(place)


@pytest.fixture(scope="module")
def rich(place: Path, dray: Dray) -> Path:
    """Of a tree with everything but what a layer cannot say."""
    tree = rich_tree(place / "tree")
    for whiteout in tuple(tree.rglob(".wh.*")):
        whiteout.unlink()
    return converted(dray, f"dir:{tree}", place / "rich.squashfs")


def converted(dray: Dray, what: str, out: Path) -> Path:
    done = dray(*KEEP_ALL, what, out)
    assert done.returncode == 0, done.stderr
    return out


def archive(image: Path, out: Path, compression: Compression = "gzip") -> Path:
    with out.open("xb") as file:
        layout = ArchivePlace(file)
        assert write_layout(layout, image, NAMED, compression, silence).sockets == 0
        layout.finish()
    return out


def directory(image: Path, out: Path, compression: Compression = "zstd") -> Path:
    write_layout(DirectoryPlace(out), image, NAMED, compression, silence)
    return out


def blob(layout: Path, descriptor: dict[str, Any]) -> Path:
    digest: str = descriptor["digest"]
    path = layout / "blobs" / digest.replace(":", "/")
    content = path.read_bytes()
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
    assert len(content) == descriptor["size"]
    return path


def test_a_tree_of_everything_comes_back_as_it_was(rich: Path, dray: Dray, place: Path) -> None:
    expected = image_rows(rich)
    assert len(expected) > 1200
    packed = archive(rich, place / "rich.tar")
    again = converted(dray, f"oci-archive:{packed}", place / "again.squashfs")
    assert image_rows(again) == expected


def test_what_an_image_runs_comes_back_too(dray: Dray, place: Path) -> None:
    layers = [
        layer_of({"bin/tool": File(b"#!/bin/sh\n", 0o4755), "gone": b"1", "kept": b"2"}),
        layer_of({".wh.gone": b"", "link": Link("bin/tool"), "hard": b""}),
    ]
    image = build_image(layers, run=RUN)
    saved = place / "saved.tar"
    saved.write_bytes(archive_of(docker_members({"some/app:1": image})))
    first = converted(dray, f"docker-archive:{saved}", place / "first.squashfs")
    layout = directory(first, place / "layout", "none")
    [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    assert entry["annotations"] == {REF_NAME: "2.1", FULL_NAME: REFERENCE}
    manifest = json.loads(blob(layout, entry).read_text())
    config = json.loads(blob(layout, manifest["config"]).read_text())
    assert config["config"] == RUN
    assert f"{config['os']}/{config['architecture']}" == this_platform()
    [layer] = manifest["layers"]
    assert config["rootfs"]["diff_ids"] == [layer["digest"]], "what is not compressed is the tar"
    with tarfile.open(blob(layout, layer)) as tar:
        assert sorted(tar.getnames()) == [".", "bin", "bin/tool", "hard", "kept", "link"]
    second = converted(dray, f"oci:{layout}:{REFERENCE}", place / "second.squashfs")
    assert image_rows(second) == image_rows(first)
    was, is_now = read_image(first).description, read_image(second).description
    assert was is not None
    assert is_now is not None
    assert is_now.config == was.config


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_same_image_gives_the_same_bytes(
    compression: Compression, rich: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = archive(rich, tmp_path / "one.tar", compression).read_bytes()
    alone = {min(os.sched_getaffinity(0))}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: alone)
    assert archive(rich, tmp_path / "two.tar", compression).read_bytes() == one


def test_names_that_delete_in_a_layer_are_refused(tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "tree", **{".wh.file": "a file like others"})
    made = place_image(tree, tmp_path / "images", name="whiteout")
    with SquashImage(made.path) as image, pytest.raises(NoLayerError, match=r"\.wh\.file"):
        look_through(image)


def needs(program: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (package {program})")

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *map(str, words)], capture_output=True, text=True, timeout=120, check=False
        )

    return run


def test_skopeo_copies_it(rich: Path, tmp_path: Path) -> None:
    skopeo = needs("skopeo")
    packed, layout = archive(rich, tmp_path / "a.tar"), directory(rich, tmp_path / "a")
    # All blobs are read and compared; of the first, a manifest of another format is made.
    for source, copy in (
        (f"oci-archive:{packed}:2.1", f"docker-archive:{tmp_path / 'copy.tar'}:x:1"),
        (f"oci:{layout}:2.1", f"dir:{tmp_path / 'copy'}"),
    ):
        seen = skopeo("inspect", source)
        assert seen.returncode == 0, seen.stderr
        assert json.loads(seen.stdout)["Architecture"] == this_platform().split("/")[1]
        copied = skopeo("copy", "--insecure-policy", source, copy)
        assert copied.returncode == 0, copied.stderr


@pytest.mark.root
def test_umoci_unpacks_it_to_the_same_tree(rich: Path, tmp_path: Path) -> None:
    umoci = needs("umoci")
    if not is_root():
        pytest.skip("needs root: owners and devices")
    layout = directory(rich, tmp_path / "layout", "gzip")
    done = umoci("unpack", "--image", f"{layout}:2.1", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    root = tmp_path / "bundle/rootfs"
    assert (root / "etc/hard").samefile(root / "usr/noise513")
    assert os.getxattr(root / "usr/noise1", "user.a") == b"b"
    assert (root / "large").stat().st_rdev == os.makedev(259, 300)
    names = {os.fsencode(path.relative_to(root)) for path in root.rglob("*")}
    assert names == image_rows(rich).keys() - {b""}
    holes = (root / "holes").read_bytes()
    assert (len(holes), holes[5_000_000]) == (9_000_000, ord("y"))
