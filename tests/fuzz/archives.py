"""Archives of images: what `docker save` writes, and OCI layouts. Settings, which are files too.

The input is several documents. Where one says @2@ it gets the digest of the third, and by #2# its
size: else every change to a document would end at its digest.
"""

import hashlib
import os
from typing import Final

from services.converter.registry.errors import RegistryError
from services.converter.registry.platforms import Platform
from services.converter.sources import docker_archive, layout
from services.converter.sources.archive import TarFiles
from services.converter.sources.errors import (
    ArchiveInvalidError,
    ArchiveTooLargeError,
    ImageNotInArchiveError,
)
from shared.config import load_settings
from shared.errors import ConfigError, InvalidReferenceError
from tests.fuzz.target import Target, in_memory
from tests.fuzz.tars import short, with_checksums
from tests.support.packing import hard_link, symlink, tar_of

_HERE: Final = Platform("linux", "amd64")
_NAMES: Final = (None, "a:1")
_BETWEEN: Final = b"\n--\n"
_MOST_DOCUMENTS: Final = 9


def _documents(data: bytes) -> list[bytes]:
    """Each may name only those behind it."""
    found = data.split(_BETWEEN, _MOST_DOCUMENTS)
    for number in reversed(range(len(found))):
        for later in range(number + 1, len(found)):
            digest = hashlib.sha256(found[later]).hexdigest().encode()
            size = b"%d" % len(found[later])
            found[number] = (
                found[number].replace(b"@%d@" % later, digest).replace(b"#%d#" % later, size)
            )
    return found


def _archive(data: bytes) -> None:
    first, *others = _documents(data)
    tar = tar_of(
        ("manifest.json", first),
        ("index.json", first),
        ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        ("config.json", others[0] if others else b""),
        ("layer.tar", b"x" * 100),
        hard_link("again.tar", "layer.tar"),
        symlink("link.tar", "./d/../layer.tar"),
        symlink("round.tar", "round.tar"),
        *((f"blobs/sha256/{hashlib.sha256(each).hexdigest()}", each) for each in others),
    )
    with in_memory(tar) as (fd, _):
        files = TarFiles(os.fdopen(os.dup(fd), "rb"), "x.tar")
        try:
            for name in _NAMES:
                _resolve(files, name)
        finally:
            files.close()


def _resolve(files: TarFiles, name: str | None) -> None:
    for resolve in (docker_archive.resolve, layout.resolve):
        try:
            image = resolve(files, name, _HERE)
        except (
            *(ArchiveInvalidError, ArchiveTooLargeError, ImageNotInArchiveError),
            *(RegistryError, InvalidReferenceError),
        ):
            continue
        assert 1 <= len(image.layers) <= 127
        assert len(image.digests.layers) == len(image.layers)
        assert all(layer.size >= 0 for layer in image.layers)
        assert all(digest.startswith("sha256:") for digest in image.digests.layers)


def _members(data: bytes) -> None:
    """The tar around them."""
    with in_memory(data) as (fd, _):
        try:
            files = TarFiles(os.fdopen(os.dup(fd), "rb"), "x.tar")
        except (ArchiveInvalidError, ArchiveTooLargeError):
            return
        try:
            for name in ("a", "d/file", "d/link", "../a", "/a/", "round", "\udcff"):
                try:
                    size = files.size(name)
                    content = files.read(name, 0, 1 << 16)
                except ArchiveInvalidError:
                    continue
                assert size is not None or not content
                assert size is None or len(content) <= size
        finally:
            files.close()


def _settings(data: bytes) -> None:
    with in_memory(data) as (_, path):
        try:
            load_settings(path)
        except ConfigError:
            return


def _archives() -> list[bytes]:
    config = (
        b'{"os":"linux","architecture":"amd64","config":{"Env":["A=1"]},'
        b'"rootfs":{"diff_ids":["sha256:%s"]}}' % (b"5" * 64)
    )

    def manifest(config_at: int) -> bytes:
        layer = _offer(b"layer.v1.tar", config_at + 1)
        return b'{"schemaVersion":2,"config":%s,"layers":[%s]}' % (
            _offer(b"config.v1+json", config_at),
            layer,
        )

    name = b',"annotations":{"org.opencontainers.image.ref.name":"a:1"}'
    index = b'{"schemaVersion":2,"manifests":[%s]}'
    saved = b'[{"Config":"config.json","RepoTags":["a:1"],"Layers":["layer.tar"]}]'
    linked = b'[{"Config":"config.json","RepoTags":null,"Layers":["link.tar"]}]'
    documents = (
        (saved, config),
        (linked, config),
        (index % _offer(b"manifest.v1+json", 1, name), manifest(2), config, b"layer"),
        (
            index % _offer(b"index.v1+json", 1),
            index % _offer(b"manifest.v1+json", 2, name),
            *(manifest(3), config, b"layer"),
        ),
    )
    return [_BETWEEN.join(each) for each in documents]


def _offer(kind: bytes, at: int, more: bytes = b"") -> bytes:
    return b'{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:@%d@","size":#%d#%s}' % (
        *(kind, at, at),
        more,
    )


def _tars() -> list[bytes]:
    tar = tar_of(
        ("a", b"abc"),
        ("d/file", b"x" * 600),
        symlink("d/link", "../a"),
        hard_link("again", "d/file"),
        symlink("round", "round"),
    )
    return [short(tar)]


_SETTINGS: Final = b"""data_dir: /srv/dray
systems:
  cluster: {image_dir: /lustre/images, platform: linux/amd64}
registries:
  registry.example.org: {username: u}
gateway: {listen: '127.0.0.1:7600'}
log: {level: info}
"""

TARGETS: Final = {
    "archive": Target(
        _archive,
        _archives,
        words=(
            *(b'@1@ @2@ @3@ #1# #2# [] {} null 1 -1 "" , : { } [ ]'.split()),
            *(_BETWEEN, b"again.tar", b"round.tar", b"../layer.tar", b'"Layers"', b'"platform"'),
            *(
                b"index.v1+json",
                b"manifest.v1+json",
                b"\\u0000",
                b"\\u00e9",
                b"a:1",
                b"config.json",
            ),
        ),
        examples=60,
    ),
    "members": Target(
        _members, _tars, largest=8192, repair=with_checksums, words=(b"../", b"/", b"round")
    ),
    "settings": Target(
        _settings,
        lambda: [_SETTINGS],
        words=(
            *(b"!!int !!float !!timestamp !!bool !!set null {} [] ~ -1 1e400 2026-02-30".split()),
            *(
                b"\n  ",
                b"\n- ",
                b": ",
                b"? ",
                b'""',
                b"\\0",
                b"../",
                b"bus:",
                b"gateway:",
                b"agent:",
            ),
        ),
    ),
}
