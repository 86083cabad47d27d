"""OCI layouts, in directories and archives: names, platforms, nested indexes, and damage."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.converter.packing.limits import Limits
from services.converter.registry.errors import (
    ContentMismatchError,
    PlatformNotFoundError,
    RegistryProtocolError,
)
from services.converter.registry.platforms import Platform
from services.converter.sources.errors import (
    ArchiveInvalidError,
    ArchiveNotFoundError,
    ArchiveTooLargeError,
    ImageNotInArchiveError,
)
from shared.errors import DrayError
from tests.support.archives import Content, archive_of, blob_name, layout_members, write_tree
from tests.support.images import BuiltImage, build_image, build_index, layer_of, sha256
from tests.unit.sources.conftest import HERE, Look

LAYER = layer_of({"a": b"content"}, "gzip")
ZSTD = layer_of({"b": b"content"}, "zstd")
IMAGE = build_image([LAYER, ZSTD])
OTHER = build_image([ZSTD])
ELSEWHERE = Platform("linux", "s390x")
FOREIGN = build_image([LAYER], platform=ELSEWHERE)
BOTH = build_index({ELSEWHERE: FOREIGN, HERE: IMAGE})
NESTED = BuiltImage(
    manifest=(
        nested := json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": BOTH.media_type,
                "manifests": [
                    {
                        "mediaType": BOTH.media_type,
                        "digest": BOTH.digest,
                        "size": len(BOTH.manifest),
                    }
                ],
            }
        ).encode()
    ),
    media_type=BOTH.media_type,
    digest=sha256(nested),
    children=(BOTH,),
)

Put = Callable[[Path, dict[str, Content]], str]


def as_directory(path: Path, members: dict[str, Content]) -> str:
    return f"oci:{write_tree(path, members)}"


def as_archive(path: Path, members: dict[str, Content]) -> str:
    path.write_bytes(archive_of(members))
    return f"oci-archive:{path}"


def as_path(path: Path, members: dict[str, Content]) -> str:
    return str(write_tree(path, members))


@pytest.mark.parametrize("put", [as_directory, as_archive, as_path])
async def test_a_layout_holds_an_image(put: Put, tmp_path: Path, look: Look) -> None:
    image, layers = await look(put(tmp_path / "it", layout_members({"1.0": IMAGE})))
    assert layers == [LAYER.blob, ZSTD.blob]
    assert [layer.blob for layer in image.layers] == [LAYER.digest, ZSTD.digest]
    assert [layer.diff_id for layer in image.layers] == [LAYER.diff_id, ZSTD.diff_id]
    assert image.digests.manifest == image.digests.reference == IMAGE.digest


async def test_one_of_several_is_named(tmp_path: Path, look: Look) -> None:
    there = as_directory(tmp_path / "it", layout_members({"1.0": IMAGE, "h.io/other:2": OTHER}))
    for name in ("h.io/other:2", "docker://h.io/other:2"):
        image, _ = await look(f"{there}:{name}")
        assert image.digests.manifest == OTHER.digest
    with pytest.raises(ImageNotInArchiveError, match=r"name one of 1\.0, h\.io/other:2"):
        await look(there)
    with pytest.raises(ImageNotInArchiveError, match=r"no image named '2\.0'"):
        await look(f"{there}:2.0")


async def test_containerd_writes_whole_names(tmp_path: Path, look: Look) -> None:
    members = layout_members(
        {"docker.io/library/a:1": IMAGE, "docker.io/library/b:1": OTHER},
        annotation="io.containerd.image.name",
    )
    image, _ = await look(f"{as_archive(tmp_path / 'it.tar', members)}:b:1")
    assert image.digests.manifest == OTHER.digest


async def test_one_image_under_two_names_needs_none(tmp_path: Path, look: Look) -> None:
    members = layout_members({"1.0": IMAGE, "latest": IMAGE})
    image, _ = await look(as_archive(tmp_path / "it.tar", members))
    assert image.digests.manifest == IMAGE.digest


@pytest.mark.parametrize("top", [BOTH, NESTED])
async def test_an_index_has_the_platform_that_suits(
    top: BuiltImage, tmp_path: Path, look: Look
) -> None:
    there = as_archive(tmp_path / "it.tar", layout_members({"1.0": top}))
    image, _ = await look(there)
    assert (image.digests.manifest, image.digests.reference) == (IMAGE.digest, top.digest)
    image, _ = await look(there, ELSEWHERE)
    assert image.digests.manifest == FOREIGN.digest
    with pytest.raises(PlatformNotFoundError, match="only for"):
        await look(there, Platform("linux", "riscv64"))


@pytest.mark.parametrize("told", [True, False])
async def test_platforms_may_stand_side_by_side(told: bool, tmp_path: Path, look: Look) -> None:
    platforms = {"#x": {"os": "linux", "architecture": "s390x"}} if told else {}
    members = layout_members({"#x": FOREIGN, "#here": IMAGE}, platforms=platforms)
    image, _ = await look(as_archive(tmp_path / "it.tar", members))
    assert image.digests.manifest == IMAGE.digest


@pytest.mark.parametrize("put", [as_directory, as_archive])
@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("oci-layout", b'{"imageLayoutVersion": "2.0.0"}', ArchiveInvalidError, "version"),
        ("oci-layout", b"[]", ArchiveInvalidError, "version"),
        ("index.json", b"{}", RegistryProtocolError, "not valid"),
        ("index.json", b"nonsense", RegistryProtocolError, "not valid"),
        (blob_name(IMAGE.digest), IMAGE.manifest + b" ", ContentMismatchError, "digest"),
        (blob_name(IMAGE.config_digest), b"{}", ContentMismatchError, "digest"),
        (blob_name(LAYER.digest), LAYER.blob + b" ", ContentMismatchError, "digest"),
        (blob_name(LAYER.digest), None, ArchiveInvalidError, "does not hold"),
        (blob_name(IMAGE.digest), None, ArchiveInvalidError, "does not hold"),
        ("oci-layout", None, ArchiveInvalidError, "no OCI image layout"),
        ("index.json", b" " * (5 << 20), ArchiveTooLargeError, "index.json"),
    ],
)
async def test_what_is_wrong_is_said(
    put: Put,
    name: str,
    content: bytes | None,
    error: type[DrayError],
    says: str,
    tmp_path: Path,
    look: Look,
) -> None:
    members = layout_members({"1.0": IMAGE})
    if content is None:
        del members[name]
    else:
        members[name] = content
    with pytest.raises(error, match=says):
        await look(put(tmp_path / "it", members))


async def test_no_link_leads_out_of_a_directory(tmp_path: Path, look: Look) -> None:
    members = layout_members({"1.0": IMAGE})
    blob = blob_name(LAYER.digest)
    (tmp_path / "outside").write_bytes(LAYER.blob)
    members[blob] = str(tmp_path / "outside")
    with pytest.raises(ArchiveInvalidError, match="not followed"):
        await look(as_directory(tmp_path / "file", members))
    members[blob] = LAYER.blob
    there = as_directory(tmp_path / "directory", members)
    (tmp_path / "directory/blobs").rename(tmp_path / "elsewhere")
    (tmp_path / "directory/blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArchiveInvalidError, match="not followed"):
        await look(there)


async def test_a_blob_that_is_a_pipe_is_refused(tmp_path: Path, look: Look) -> None:
    members = layout_members({"1.0": IMAGE})
    del members[blob_name(LAYER.digest)]
    there = as_directory(tmp_path / "it", members)
    os.mkfifo(tmp_path / "it" / blob_name(LAYER.digest))
    with pytest.raises(ArchiveInvalidError, match="no regular file"):
        await look(there)


async def test_indexes_within_indexes_end(tmp_path: Path, look: Look) -> None:
    top = NESTED
    for _ in range(6):
        entry = {"mediaType": top.media_type, "digest": top.digest, "size": len(top.manifest)}
        body = json.dumps(
            {"schemaVersion": 2, "mediaType": top.media_type, "manifests": [entry]}
        ).encode()
        top = BuiltImage(body, top.media_type, sha256(body), children=(top,))
    with pytest.raises(ArchiveInvalidError, match="indexes within indexes"):
        await look(as_archive(tmp_path / "it.tar", layout_members({"1.0": top})))


async def test_a_bomb_is_not_expanded(tmp_path: Path, look: Look) -> None:
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20), 9))
    with pytest.raises(ArchiveTooLargeError, match="expands"):
        await look(str(path), limits=Limits(ratio_from=8 << 20))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ArchiveInvalidError, match="cannot be decompressed"):
        await look(str(path))


async def test_a_file_that_is_not_there(tmp_path: Path, look: Look) -> None:
    for text in (f"oci:{tmp_path}/no", f"oci-archive:{tmp_path}/no:x", f"{tmp_path}/no"):
        with pytest.raises(ArchiveNotFoundError, match="there is no"):
            await look(text)
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveNotFoundError, match="Not a directory"):
        await look(f"oci:{tmp_path}/file")
