"""Archives of docker save: what is in them, whatever their age, and what is refused."""

import gzip
import json
import os
from pathlib import Path

import pytest
import zstandard

from services.converter.registry.errors import ContentMismatchError, PlatformNotFoundError
from services.converter.registry.platforms import Platform
from services.converter.sources.errors import (
    ArchiveInvalidError,
    ArchiveNotFoundError,
    ArchiveTooLargeError,
    ImageNotInArchiveError,
)
from shared.errors import DrayError
from tests.support.archives import Content, archive_of, docker_members
from tests.support.images import BuiltImage, build_image, layer_of
from tests.unit.sources.conftest import Look

LOWER = layer_of({"a": b"lower"}, "none")
UPPER = layer_of({"b": b"upper"}, "none")
IMAGE = build_image([LOWER, UPPER], kind="docker", run={"Env": ["A=1"]})
OTHER = build_image([LOWER], kind="docker")
CONFIG = f"{IMAGE.config_digest[7:]}.json"


def saved(path: Path, members: dict[str, Content]) -> str:
    path.write_bytes(archive_of(members))
    return str(path)


def of(image: BuiltImage) -> tuple[list[str], list[bytes]]:
    return [layer.diff_id for layer in image.layers], [layer.blob for layer in image.layers]


async def test_an_archive_holds_an_image(tmp_path: Path, look: Look) -> None:
    image, layers = await look(saved(tmp_path / "i.tar", docker_members({"tool:1": IMAGE})))
    assert ([layer.diff_id for layer in image.layers], layers) == of(IMAGE)
    assert all(layer.blob is None for layer in image.layers)
    assert image.digests.config == image.digests.manifest == IMAGE.config_digest
    assert image.config.env == ("A=1",)


@pytest.mark.parametrize("how", [gzip.compress, zstandard.ZstdCompressor().compress])
async def test_a_compressed_archive_is_expanded_once(
    how: object, tmp_path: Path, look: Look
) -> None:
    assert callable(how)
    path = tmp_path / "i.tar.x"
    path.write_bytes(how(archive_of(docker_members({"tool:1": IMAGE}))))
    _, layers = await look(str(path))
    assert layers == of(IMAGE)[1]


async def test_layers_may_be_compressed_or_links_or_listed_twice(
    tmp_path: Path, look: Look
) -> None:
    packed = layer_of({"c": b"packed"}, "gzip")
    twice = build_image([LOWER, packed, LOWER], kind="docker")
    members = docker_members({"tool:1": twice})
    assert sum(isinstance(content, str) for content in members.values()) == 1
    image, layers = await look(saved(tmp_path / "i.tar", members))
    assert ([layer.diff_id for layer in image.layers], layers) == of(twice)


async def test_a_current_docker_names_blobs(tmp_path: Path, look: Look) -> None:
    blobs = {f"blobs/sha256/{layer.diff_id[7:]}": layer.blob for layer in IMAGE.layers}
    config = f"blobs/sha256/{IMAGE.config_digest[7:]}"
    entry = {"Config": config, "RepoTags": None, "Layers": list(blobs)}
    members: dict[str, Content] = {
        **blobs,
        config: IMAGE.config,
        "manifest.json": json.dumps([entry]).encode(),
        "index.json": b"{}",
        "oci-layout": b"{}",
    }
    _, layers = await look(saved(tmp_path / "i.tar", members))
    assert layers == of(IMAGE)[1]


async def test_the_image_is_chosen_by_any_form_of_its_name(tmp_path: Path, look: Look) -> None:
    images = {"group/tool:1": IMAGE, "ubuntu:24.04": OTHER}
    path = saved(tmp_path / "two:images.tar", docker_members(images))
    with pytest.raises(ImageNotInArchiveError, match=r"group/tool:1, ubuntu:24\.04"):
        await look(path)
    for name in ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"):
        plain = saved(tmp_path / "two.tar", docker_members(images))
        image, _ = await look(f"docker-archive:{plain}:{name}")
        assert image.digests.config == OTHER.config_digest
    with pytest.raises(ImageNotInArchiveError, match="no image named 'x:1'"):
        await look(f"docker-archive:{tmp_path}/two.tar:x:1")


async def test_one_image_under_several_names_needs_none(tmp_path: Path, look: Look) -> None:
    members = docker_members({"a:1": IMAGE, "b:1": IMAGE})
    image, _ = await look(saved(tmp_path / "i.tar", members))
    assert image.digests.config == IMAGE.config_digest


async def test_an_image_for_other_processors_is_refused(tmp_path: Path, look: Look) -> None:
    path = saved(tmp_path / "i.tar", docker_members({"tool:1": IMAGE}))
    with pytest.raises(PlatformNotFoundError, match="s390x"):
        await look(path, Platform("linux", "s390x"))


def without(name: str) -> dict[str, Content]:
    members = docker_members({"tool:1": IMAGE})
    del members[name]
    return members


def instead(name: str, content: Content) -> dict[str, Content]:
    return docker_members({"tool:1": IMAGE}) | {name: content}


FIRST_LAYER = next(name for name in docker_members({"tool:1": IMAGE}) if "/" in name)


@pytest.mark.parametrize(
    ("members", "error", "says"),
    [
        ({}, ArchiveInvalidError, "neither"),
        ({"other/passwd": b"root"}, ArchiveInvalidError, "neither"),
        ({"repositories": b"{}"}, ArchiveInvalidError, "before 1.10"),
        (without(CONFIG), ArchiveInvalidError, "does not hold"),
        (without(FIRST_LAYER), ArchiveInvalidError, "does not hold"),
        (instead(CONFIG, IMAGE.config + b" "), ContentMismatchError, "not what its name promises"),
        (instead("manifest.json", b"[]"), ArchiveInvalidError, "no image"),
        (instead("manifest.json", b"{"), ArchiveInvalidError, "not valid"),
        (instead("manifest.json", b'[{"Config": 1}]'), ArchiveInvalidError, "not valid"),
        (instead("manifest.json", b" " * (5 << 20)), ArchiveTooLargeError, "manifest.json"),
        (instead("manifest.json", "manifest.json"), ArchiveInvalidError, "no regular file"),
        (instead(FIRST_LAYER, "/etc/passwd"), ArchiveInvalidError, "does not hold"),
        (instead(FIRST_LAYER, "../../../../etc/passwd"), ArchiveInvalidError, "does not hold"),
    ],
)
async def test_what_is_wrong_is_said(
    members: dict[str, Content],
    error: type[DrayError],
    says: str,
    tmp_path: Path,
    look: Look,
) -> None:
    with pytest.raises(error, match=says):
        await look(saved(tmp_path / "i.tar", members))


async def test_files_that_could_block_or_are_none_are_refused(tmp_path: Path, look: Look) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, error, says in (
        (tmp_path / "pipe", ArchiveInvalidError, "no regular file"),
        (Path("/dev/zero"), ArchiveInvalidError, "no regular file"),
        (tmp_path / "missing", ArchiveNotFoundError, "there is no"),
    ):
        with pytest.raises(error, match=says):
            await look(str(path))


async def test_an_archive_that_cannot_be_read_is_not_blamed_on_the_store(look: Look) -> None:
    """Reading there is an I/O error, as on a disk that dies."""
    with pytest.raises(ArchiveNotFoundError, match="/proc/self/mem cannot be read"):
        await look("docker-archive:/proc/self/mem")
