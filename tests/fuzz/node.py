"""What an agent reads of images and of its node: libraries, caches, CDI files, modules; packs."""

import tempfile
from pathlib import Path
from typing import Final

from services.node_agent.errors import ElfError, InsideRefusedError
from services.node_agent.inside.cdi import Edits
from services.node_agent.inside.cdi_parts import parts_of
from services.node_agent.inside.cdi_spec import CdiSpec
from services.node_agent.inside.elf import read_elf
from services.node_agent.inside.ldcache import paths_in
from services.node_agent.inside.module import Module
from services.node_agent.inside.site_files import load
from shared.image.errors import PackCorruptError
from shared.image.packs.index import PackIndex, decode, encode
from shared.image.packs.pack import footer_of, read_index
from tests.fuzz.target import Target, in_memory
from tests.support.elves import glibc, ld_cache, library, mpich, open_mpi
from tests.support.packing import pack, tar_of

_MOST_READS: Final = 20_000
_LIBRARY: Final = b"@library@"
"""In CDI files, for a path that differs from one run to the next."""


def _elf(data: bytes) -> None:
    reads = 0

    def read(at: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        assert reads < _MOST_READS
        assert 0 <= at < 1 << 63
        assert size <= 256
        return data[at : at + size]

    try:
        found = read_elf(read)
    except ElfError:
        return
    names = (found.soname, *found.needed, *found.offers, *found.asks)
    assert all(len(name) <= 255 and "\0" not in name for name in names)


def _ldcache(data: bytes) -> None:
    wanted = {"libc.so.6", "libmpi.so.40"}
    found = paths_in(data, wanted)
    assert set(found) <= wanted
    for paths in found.values():
        assert 0 < len(paths) <= 8
        assert all(path.startswith("/") and "\0" not in path for path in paths)


def _cdi(data: bytes) -> None:
    """Behind a NUL is the library that it names."""
    text, _, elf = data.partition(b"\0")
    with in_memory(elf) as (_, source):
        with in_memory(text.replace(_LIBRARY, str(source).encode())) as (_, path):
            spec = load(path, CdiSpec)
        if isinstance(spec, str):
            return
        edits = (spec.container_edits, *(device.container_edits for device in spec.devices))
        try:
            found = parts_of(Edits("file", edits))
        except InsideRefusedError:
            return
    for target in (*(bind.target for bind in found.mounts), *(node.path for node in found.nodes)):
        names = target.split("/")
        assert names[0] == ""
        assert not {"", ".", ".."} & set(names[1:]), target
    assert all(node.path.startswith("/dev/") for node in found.nodes)
    assert all(bind.source.startswith("/") for bind in found.mounts)
    assert all("\0" not in value for change in found.changes for value in change.set.values())


def _module(data: bytes) -> None:
    with in_memory(data) as (_, path):
        found = load(path, Module)
    if isinstance(found, str):
        return
    for place in (*(bind.source for bind in found.binds), *found.devices):
        assert place.startswith("/")
        assert ".." not in place.split("/")
    assert all(place.startswith("/dev/") for place in found.devices)


def _pack_index(data: bytes) -> None:
    """A digest guards it; this is what guards us where the digest is right."""
    try:
        found = decode(data, "zstd", 4096)
    except PackCorruptError:
        return
    assert decode(encode(found), "zstd", 4096) == found


def _pack_footer(data: bytes) -> None:
    with in_memory(data) as (_, path), path.open("rb") as file:
        try:
            found = footer_of(file, Path("pack"))
        except PackCorruptError:
            return
    assert found.data_length + found.index_length < len(data)


def _indexes() -> list[bytes]:
    return [encode(PackIndex(compression="zstd", block_size=4096)), *_packs(index=True)]


def _packs(*, index: bool = False) -> list[bytes]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "pack"
        made = pack(tar_of(("d/f", b"x" * 5000), ("g", b"y")), path)
        return [encode(read_index(path, made.key)) if index else path.read_bytes()]


_CDI: Final = b"""cdiVersion: "0.6.0"
kind: example.com/gpu
containerEdits:
  env: [A=1]
  hooks:
  - {hookName: createContainer, path: /usr/bin/nvidia-ctk, args: [nvidia-ctk, hook, create-symlinks,
     --link, "libgpu.so.1::/usr/lib/libgpu.so"]}
  - {hookName: createContainer, path: /usr/bin/nvidia-ctk, args: [nvidia-ctk, hook, update-ldcache,
     --folder, /usr/lib]}
  mounts:
  - {hostPath: @library@, containerPath: /usr/lib/libgpu.so.1.2, options: [ro, bind]}
devices:
- name: 0
  containerEdits:
    deviceNodes:
    - {path: /dev/null}
    - {path: /dev/gpu0, hostPath: /dev/zero}
"""
_MODULE: Final = b"""about: the site's MPI
mpi: mpich
conflicts: [openmpi]
binds:
- {from: /opt/site/mpich, optional: true}
- {from: /a, to: /b//./c, read_only: false}
devices: [/dev/infiniband, /dev/hfi*]
cdi: [nvidia.com/gpu=job]
env:
  prepend: {LD_LIBRARY_PATH: /opt/site/mpich/lib}
before: [{run: [/bin/true, x], seconds: 2}]
"""
_YAML: Final = (
    *(b"!!int !!float !!timestamp !!bool !!binary !!set !!null !!str &a *a << ? | > - ~".split()),
    *(b'"" {} [] .. ../ // . /dev/ /dev /.. \\0 : , --link --folder :: .so lib ro'.split()),
    *(b"\n  ", b"\n- ", b"\n", b": ", b"\t", b"[" * 30, b"\xff", b"/proc/self/exe", b"@library@"),
)

TARGETS: Final = {
    "elf": Target(
        _elf,
        lambda: [glibc(), open_mpi(), mpich(), library()],
        words=(b"\x7fELF\x02\x01", b"\x7fELF\x01\x02", b"GLIBC_2.4\0"),
        examples=60,
    ),
    "ldcache": Target(
        _ldcache,
        lambda: [
            ld_cache(("libc.so.6", "/lib/libc.so.6"), ("libmpi.so.40", "/opt/libmpi.so.40")),
            b"ld.so-1.7.0\0" + bytes(4) + ld_cache(("libc.so.6", "/lib/libc.so.6")),
        ],
        words=(b"glibc-ld.so.cache1.1", b"ld.so-1.7.0\0", b"libc.so.6\0", b"/"),
    ),
    "cdi": Target(_cdi, lambda: [_CDI + b"\0" + library("libgpu.so.1")], words=_YAML, examples=60),
    "module": Target(_module, lambda: [_MODULE], words=_YAML, examples=60),
    "pack-index": Target(_pack_index, _indexes),
    "pack-footer": Target(_pack_footer, _packs),
}
