"""What a user may write for an image: a reference to a registry, or a file in several ways.

ubuntu:24.04                    as for `dray pull`, also with docker: before it
./image.tar  /x/layout          a file or directory, whatever it turns out to be
docker-archive:PATH[:NAME]      of docker save, podman save
oci-archive:PATH[:NAME]         a tar of an OCI layout
oci:DIR[:NAME]                  an OCI layout
tar:PATH                        a tar of a root file system
dir:PATH                        a directory that has a root file system in it, or any tree
squashfs:PATH                   a squashfs image of any tool's
ext4:PATH xfs:PATH              a file system's image
disk:PATH qcow2:PATH vmdk:PATH  a machine's disk: its root file system
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.converter.sources.errors import ArchiveNotFoundError
from services.converter.sources.layout import MARK
from shared.errors import InvalidInputError
from shared.formats import DISK_FORMATS, FORMATS, Format
from shared.reference import ImageReference, parse_reference

# Of these all that follows is the path; and they are plausible names of images, too.
_BARE: Final = ("tar", "dir", "squashfs", *DISK_FORMATS)
# What other tools read images from, and we do not.
_ELSEWHERE: Final = ("docker-daemon:", "containers-storage:", "sif:/", "sif:.")
_ARCHIVE: Final = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")


@dataclass(frozen=True, slots=True)
class FileOrigin:
    """An image in a file; `kind` is None where only looking into it tells."""

    path: Path
    kind: Format | None = None
    name: str | None = None


def parse_origin(text: str) -> ImageReference | FileOrigin:
    """Looks at the file system: a bare name is a file if there is one. Blocks."""
    for kind in FORMATS:
        if text.startswith(f"{kind}:"):
            rest = text.removeprefix(f"{kind}:")
            if kind not in _BARE:
                return _explicit(kind, rest)
            if rest and "/" not in rest and not _exists(Path(rest)):
                raise _absent("directory" if kind == "dir" else "file", rest, text)
            return _bare(kind, rest)
    if text.startswith(("/", "./", "../")) or _is_image_file(Path(text)):
        return FileOrigin(Path(text))
    if text.startswith(_ELSEWHERE):
        raise InvalidInputError(
            f"images cannot be read from '{text.partition(':')[0]}:': save the image as an archive "
            "(docker save, podman save, skopeo copy) or push it to a registry; what can be read is "
            "REF, docker:REF, PATH, docker-archive:PATH, oci-archive:PATH, oci:DIR, tar:PATH, "
            f"dir:PATH, squashfs:PATH and {{{','.join(DISK_FORMATS)}}}:PATH"
        )
    if text.endswith(_ARCHIVE) and not text.startswith("docker:"):
        raise _absent("file", text, text)
    return parse_reference(text)


def _absent(what: str, path: str, text: str) -> ArchiveNotFoundError:
    """A mistyped path is not looked for in a registry, though its name could stand there."""
    return ArchiveNotFoundError(
        f"there is no {what} {path} here: check its path (an image of this name in a registry "
        f"is written docker://{text})"
    )


def _explicit(kind: Format, rest: str) -> FileOrigin:
    path, colon, name = rest.partition(":")
    # A path may hold a colon as well; who is sure of that has such a file.
    if colon and _exists(Path(rest)):
        path, name = rest, ""
    if not path:
        raise ArchiveNotFoundError(f"a path is missing after '{kind}:'")
    return FileOrigin(Path(path), kind, name or None)


def _bare(kind: Format, path: str) -> FileOrigin:
    if not path:
        raise ArchiveNotFoundError(f"a path is missing after '{kind}:'")
    return FileOrigin(Path(path), kind)


def _is_image_file(path: Path) -> bool:
    """Any file, but no directory that only happens to be called like an image."""
    try:
        return path.is_file() or (path / MARK).is_file()
    except (OSError, ValueError):
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
