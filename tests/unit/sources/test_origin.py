"""What a user types for an image: a reference, or a file in several ways."""

from pathlib import Path

import pytest

from services.converter.sources.errors import ArchiveNotFoundError
from services.converter.sources.origin import FileOrigin, parse_origin
from shared.errors import InvalidInputError, InvalidReferenceError
from shared.reference import ImageReference, parse_reference


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.tar").touch()
    (tmp_path / "with:colon.tar").touch()
    (tmp_path / "ubuntu").mkdir()
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout/oci-layout").touch()


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("image.tar", FileOrigin(Path("image.tar"))),
        ("./no.tar", FileOrigin(Path("no.tar"))),
        ("../x", FileOrigin(Path("../x"))),
        ("/x/layout", FileOrigin(Path("/x/layout"))),
        ("layout", FileOrigin(Path("layout"))),
        ("./with:colon.tar", FileOrigin(Path("with:colon.tar"))),
        ("docker-archive:a.tar", FileOrigin(Path("a.tar"), "docker-archive")),
        ("docker-archive:a.tar:", FileOrigin(Path("a.tar"), "docker-archive")),
        (
            "docker-archive:a.tar:h.io:5000/b:1",
            FileOrigin(Path("a.tar"), "docker-archive", "h.io:5000/b:1"),
        ),
        ("docker-archive:with:colon.tar", FileOrigin(Path("with:colon.tar"), "docker-archive")),
        ("oci-archive:/a/b.tar:1", FileOrigin(Path("/a/b.tar"), "oci-archive", "1")),
        ("oci:dir:1.0", FileOrigin(Path("dir"), "oci", "1.0")),
        ("tar:/x/root.tar.xz", FileOrigin(Path("/x/root.tar.xz"), "tar")),
        ("tar:image.tar", FileOrigin(Path("image.tar"), "tar")),
        ("dir:.", FileOrigin(Path(), "dir")),
        ("dir:ubuntu", FileOrigin(Path("ubuntu"), "dir")),
        ("squashfs:./a:b", FileOrigin(Path("a:b"), "squashfs")),
    ],
)
def test_files(text: str, origin: FileOrigin) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "ubuntu",
        "ubuntu:24.04",
        "docker:127.0.0.1:5000/repo:tag",
        "docker://ubuntu",
        "other.tar:1",
    ],
)
def test_references(text: str) -> None:
    assert isinstance(parse_origin(text), ImageReference)


def test_what_is_neither_is_refused() -> None:
    with pytest.raises(InvalidReferenceError):
        parse_origin("Not An Image")
    with pytest.raises(InvalidReferenceError):
        parse_origin("x" * 70000)
    with pytest.raises(ArchiveNotFoundError, match="a path is missing"):
        parse_origin("oci:")
    with pytest.raises(ArchiveNotFoundError, match="a path is missing"):
        parse_origin("dir:")


@pytest.mark.parametrize("text", ["no.tar", "sub/no.tar.gz", "h.io/no.tgz"])
def test_a_mistyped_file_is_not_looked_for_in_a_registry(text: str) -> None:
    with pytest.raises(ArchiveNotFoundError, match=f"written docker://{text}"):
        parse_origin(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dir:nope", "there is no directory nope here"),
        ("tar:1.34", "there is no file 1.34 here"),
        ("squashfs:nope", "there is no file nope here"),
    ],
)
def test_a_mistyped_path_is_not_looked_for_in_a_registry(text: str, says: str) -> None:
    with pytest.raises(ArchiveNotFoundError, match=f"{says}.*written docker://{text}"):
        parse_origin(text)


@pytest.mark.parametrize("name", ["no.tar", "tar:1.34", "dir:nope"])
def test_who_means_a_registry_says_so(name: str) -> None:
    assert parse_origin(f"docker://{name}") == parse_reference(name)


@pytest.mark.parametrize("text", ["docker-daemon:alpine:3", "containers-storage:alpine", "sif:/x"])
def test_what_other_tools_read_from_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(InvalidInputError, match="save the image as an archive"):
        parse_origin(text)
