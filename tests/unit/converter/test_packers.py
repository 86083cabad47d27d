"""Layers packed by processes of their own: results, errors, and what is left of whoever dies."""

import asyncio
import gzip
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import pytest

from services.converter.crossing import encoded, told
from services.converter.packers.errors import PackerDiedError
from services.converter.packers.messages import error_of, message_of
from services.converter.packers.packers import Packers
from services.converter.packing import (
    LayerDigests,
    LayerInvalidError,
    LayerMismatchError,
    LayerTooLargeError,
    Limits,
    PackSummary,
    errors,
)
from shared.errors import DrayError
from tests.support.conditions import eventually
from tests.support.noise import noise
from tests.support.packers import alive, children, children_of, nursery
from tests.support.packing import KEEP_ALL, directory, member, pack, tar_of

TAR = tar_of(
    directory("d"),
    ("d/large", noise(3 << 20)),
    *[(f"d/small{n}", b"text" * n) for n in range(400)],
)
BLOB = gzip.compress(TAR, 1)
NAMED = "sha256:" + "1" * 64
CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
async def packers() -> AsyncGenerator[Packers, None]:
    async with Packers(2) as packers:
        yield packers


async def packed(
    packers: Packers,
    blob: bytes,
    out: Path,
    expected: LayerDigests | None = None,
    limits: Limits | None = None,
) -> PackSummary:
    async with packers.packing(
        NAMED,
        expected=expected or LayerDigests(),
        options=KEEP_ALL,
        limits=limits or Limits(),
        out_path=out,
    ) as work:
        await work.write(blob)
        return await work.finish()


async def endless(packers: Packers, out: Path) -> None:
    """A layer of one file that goes on and on, to be ended from outside."""
    chunk = member("f", size=100 << 30).tobuf(tarfile.GNU_FORMAT)
    async with packers.packing(
        NAMED, expected=LayerDigests(), options=KEEP_ALL, limits=Limits(), out_path=out
    ) as work:
        while await work.write(chunk):
            chunk = bytes(1 << 20)
        await work.finish()


async def begun(packers: Packers, out: Path) -> tuple["asyncio.Task[None]", int]:
    """An endless layer in the middle of its work, and the process that does it."""
    task = asyncio.create_task(endless(packers, out))
    await eventually(lambda: task.done() or list(out.parent.glob(".*.partial")), within=20)
    (packer,) = children(packers)
    return task, packer


async def test_a_pack_has_the_bytes_that_it_has_without_processes(
    packers: Packers, tmp_path: Path
) -> None:
    expected = pack(BLOB, tmp_path / "in-process")
    outs = [tmp_path / f"out{n}" for n in range(5)]
    summaries = await asyncio.gather(*[packed(packers, BLOB, out) for out in outs])
    assert set(summaries) == {expected}
    assert {out.read_bytes() for out in outs} == {(tmp_path / "in-process").read_bytes()}
    assert children(packers) == set()


async def test_names_need_not_be_unicode(packers: Packers, tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"\xff") / "out"
    await packed(packers, BLOB, out)
    assert out.exists()
    with pytest.raises(FileExistsError) as caught:
        await packed(packers, BLOB, out / "below")
    assert caught.value.filename.startswith(str(out))


def grasping() -> Iterable[tuple[object, bytes]]:
    for n in range(1500):
        value = random.Random(n).randbytes(30_000).hex()
        yield member(f"f{n}", pax_headers={"SCHILY.xattr.user.a": value}), b""


HOSTILE: dict[str, tuple[type[Exception], bytes, LayerDigests, Limits]] = {
    "no tar": (LayerInvalidError, b"x" * 9999, LayerDigests(), Limits()),
    "no gzip": (LayerInvalidError, BLOB[:5000], LayerDigests(), Limits()),
    "another": (LayerMismatchError, BLOB, LayerDigests(diff_id=NAMED), Limits()),
    "longer": (LayerMismatchError, BLOB, LayerDigests(size=1000), Limits()),
    "shorter": (LayerMismatchError, BLOB, LayerDigests(size=len(BLOB) + 1), Limits()),
    "too large": (LayerTooLargeError, BLOB, LayerDigests(), Limits(max_bytes=1 << 20)),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_errors_come_back_as_what_they_were(
    packers: Packers, tmp_path: Path, case: str
) -> None:
    kind, blob, expected, limits = HOSTILE[case]
    with pytest.raises(kind) as here:
        pack(blob, tmp_path / "p", expected=expected, limits=limits)
    with pytest.raises(kind) as caught:
        await packed(packers, blob, tmp_path / "q", expected, limits)
    assert type(caught.value) is kind
    assert str(caught.value) == str(here.value)
    assert list(tmp_path.iterdir()) == []


async def test_a_layer_that_eats_memory_is_too_large(tmp_path: Path) -> None:
    blob = gzip.compress(tar_of(*grasping()), 1)  # type: ignore[arg-type]
    async with Packers(1, memory=64 << 20) as packers:
        with pytest.raises(LayerTooLargeError, match="more than 96 MiB of memory"):
            await packed(packers, blob, tmp_path / "p")
        assert list(tmp_path.iterdir()) == []
        await packed(packers, BLOB, tmp_path / "p")


async def test_a_fault_of_our_own_is_called_so_and_logged(
    packers: Packers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DrayError, match="an error of its own") as caught:
        await packed(packers, BLOB, tmp_path / "nul\0")
    assert type(caught.value) is DrayError
    assert "embedded null byte" in capsys.readouterr().out


def test_every_error_of_packing_has_its_class_on_the_other_side() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    for kind in (kind for kind in classes if kind.__module__ == errors.__name__):
        outcome = message_of(encoded(told(kind("what it says"))))
        found = error_of(outcome)  # type: ignore[arg-type]
        assert (type(found), str(found)) == (kind, "what it says")


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGKILL, "memory ran out"), (signal.SIGSEGV, "crash a codec")]
)
async def test_a_packer_that_dies_is_a_clear_error_and_the_next_one_works(
    packers: Packers, tmp_path: Path, number: signal.Signals, words: str
) -> None:
    packing, packer = await begun(packers, tmp_path / "p")
    os.kill(packer, number)
    with pytest.raises(PackerDiedError, match=words) as caught:
        await packing
    assert caught.value.retryable
    assert NAMED in caught.value.message
    assert number.name in caught.value.message
    assert not alive(packer)
    assert await packed(packers, BLOB, tmp_path / "p") == pack(BLOB, tmp_path / "q")


async def test_a_nursery_that_dies_is_replaced(packers: Packers, tmp_path: Path) -> None:
    await packed(packers, BLOB, tmp_path / "p")
    killed = nursery(packers)
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: not alive(killed), within=5)
    await asyncio.gather(*[packed(packers, BLOB, tmp_path / f"p{n}") for n in range(3)])
    assert not Path(f"/proc/{killed}").exists()
    assert nursery(packers) != killed


async def test_a_layer_in_work_outlives_its_nursery(packers: Packers, tmp_path: Path) -> None:
    async with packers.packing(
        NAMED,
        expected=LayerDigests(),
        options=KEEP_ALL,
        limits=Limits(),
        out_path=tmp_path / "p",
    ) as work:
        await eventually(lambda: list(tmp_path.glob(".*.partial")), within=20)
        os.kill(nursery(packers), signal.SIGKILL)
        await work.write(BLOB)
        assert (await work.finish()).blob_size == len(BLOB)
    await packed(packers, BLOB, tmp_path / "q")
    assert (tmp_path / "p").read_bytes() == (tmp_path / "q").read_bytes()


async def test_a_nursery_that_cannot_start_is_a_clear_error(
    packers: Packers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(PackerDiedError, match=r"could be started.*No such file"):
        await packed(packers, BLOB, tmp_path / "p")


async def test_giving_up_leaves_no_process_and_no_file(packers: Packers, tmp_path: Path) -> None:
    packing, packer = await begun(packers, tmp_path / "p")
    packing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await packing
    assert not Path(f"/proc/{packer}").exists()
    assert list(tmp_path.iterdir()) == []


async def given_up(packers: Packers, out: Path) -> None:
    """All bytes have come, and nothing is promised that they could break."""
    async with packers.packing(
        NAMED, expected=LayerDigests(), options=KEEP_ALL, limits=Limits(), out_path=out
    ) as work:
        await work.write(BLOB)
        raise ConnectionResetError


async def test_the_end_of_a_blob_that_was_given_up_is_not_its_end(
    packers: Packers, tmp_path: Path
) -> None:
    with pytest.raises(ConnectionResetError):
        await given_up(packers, tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


async def test_closing_ends_the_nursery(tmp_path: Path) -> None:
    async with Packers(1) as packers:
        await packed(packers, BLOB, tmp_path / "p")
        pid = nursery(packers)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        await packed(packers, BLOB, tmp_path / "q")
        assert nursery(packers) == pid, "signals for its owner's group are its owner's affair"
    assert not Path(f"/proc/{pid}").exists()


async def test_without_a_layer_there_is_no_process() -> None:
    others = children_of(os.getpid())
    async with Packers(1):
        assert children_of(os.getpid()) <= others


OWNER = """
import asyncio, sys
from pathlib import Path
from tests.unit.converter.test_packers import endless
from services.converter.packers.packers import Packers

async def main():
    async with Packers(1) as packers:
        await endless(packers, Path(sys.argv[1]) / "p")

asyncio.run(main())
"""


async def test_an_owner_that_is_killed_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], cwd=CHECKOUT)
    try:
        await eventually(lambda: list(tmp_path.glob(".*.partial")), within=20)
        (mother,) = children_of(owner.pid)
        (packer,) = children_of(mother)
    finally:
        owner.kill()
        owner.wait()
    await eventually(lambda: not (alive(mother) or alive(packer)), within=20)
    assert list(tmp_path.iterdir()) == []


HANGS = """
import socket, sys, threading
from services.converter.packers import child

child.LAST_WORD_SECONDS = 1
class Blob:
    def close(self): pass
owner = socket.socket(fileno=int(sys.argv[1]))
cancelled = threading.Event()
threading.Thread(target=child.watch, args=(owner, Blob(), cancelled), daemon=True).start()
cancelled.wait()
sum(range(1 << 62))  # never lets another thread run
"""


def test_a_packer_that_hangs_is_ended_when_its_owner_has_hung_up() -> None:
    ours, theirs = socket.socketpair()
    with theirs, ours:
        packer = subprocess.Popen(
            [sys.executable, "-c", HANGS, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=CHECKOUT,
        )
    try:
        assert packer.wait(20) == -signal.SIGALRM
    finally:
        packer.kill()
        packer.wait()
