"""An image that cannot be mounted says why, before anything is mounted."""

import pytest

from services.node_agent.errors import (
    ImageNotMountableError,
    ImageNotPlacedError,
    MountFailedError,
)
from shared.image.errors import ImageCorruptError

from .conftest import Node


def test_a_good_image_is_mounted_under_its_id(node: Node) -> None:
    image = node.image("a")
    node.stager.stage(image.image_id)
    marker = node.stager.path(image.image_id) / "marker"
    assert marker.read_text() == f"{image.image_id}.squashfs"


def test_a_missing_image_names_directory_and_setting(node: Node) -> None:
    image = node.image("a")
    node.file(image.image_id).unlink()
    with pytest.raises(ImageNotPlacedError, match=r"systems\.local\.image_dir"):
        node.stager.examine(image)
    assert node.standing() == set()


def test_an_image_of_another_size_is_corrupt(node: Node) -> None:
    image = node.image("a")
    node.file(image.image_id).write_bytes(node.file(image.image_id).read_bytes()[:-1])
    with pytest.raises(ImageCorruptError, match="4095 bytes and should have 4096"):
        node.stager.examine(image)


def test_a_superblock_that_promises_more_than_the_file_holds_is_corrupt(node: Node) -> None:
    image = node.image("a")
    short = image.model_copy(update={"size": 100})
    node.file(image.image_id).write_bytes(node.file(image.image_id).read_bytes()[:100])
    with pytest.raises(ImageCorruptError, match="holds 100 of 144 bytes"):
        node.stager.examine(short)


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n" * 20])
def test_what_is_no_squashfs_is_refused(node: Node, content: bytes) -> None:
    image = node.image("a").model_copy(update={"size": len(content)})
    node.file(image.image_id).write_bytes(content)
    with pytest.raises(ImageCorruptError, match="squashfs"):
        node.stager.examine(image)


@pytest.mark.parametrize("codec", ["zstd", "xz"])
def test_a_codec_that_this_node_cannot_read_names_the_setting(node: Node, codec: str) -> None:
    image = node.image("a", codec)
    expected = rf"compressed with {codec}.* set systems\.local\.pack\.compression to gzip"
    with pytest.raises(ImageNotMountableError, match=expected):
        node.stager.examine(image)
    assert node.mounter.mounted == []


def test_a_failed_mount_leaves_no_mount_point(node: Node) -> None:
    node.mounter.failure = MountFailedError("no")
    with pytest.raises(MountFailedError):
        node.stager.stage(node.image("a").image_id)
    assert node.standing() == set()
