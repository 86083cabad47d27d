"""Hooks of a site: real programs, what they are told, and what becomes of those that fail."""

from functools import partial
from pathlib import Path

import pytest

from services.node_agent.errors import InsideRefusedError
from services.node_agent.inside.hooks import HookCall, run_hooks
from services.node_agent.inside.module import Hook
from shared.deadline import Deadline
from tests.support.conditions import eventually

CALL = HookCall("17", 1000, "ab" * 32, Path("/run/images/x"))


def hook(script: str, *args: str, seconds: float = 20) -> Hook:
    return Hook(run=("/bin/sh", "-c", script, *args), seconds=seconds)


async def failure(*hooks: Hook, within: float = 30) -> str:
    with pytest.raises(InsideRefusedError) as caught:
        await run_hooks(hooks, CALL, Deadline.after(within))
    return caught.value.message


async def test_what_a_hook_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/tmp/evil.so")
    out = tmp_path / "out"
    await run_hooks([hook(f"env > {out}; pwd >> {out}")], CALL, Deadline.after(30))
    lines = out.read_text().splitlines()
    assert lines[-1] == "/"
    told = dict(line.split("=", 1) for line in lines[:-1])
    assert told.pop("PATH").endswith("/usr/sbin:/usr/bin:/sbin:/bin")
    # The shell's own.
    assert {name: told[name] for name in told if name not in {"PWD", "OLDPWD", "SHLVL", "_"}} == {
        "DRAY_JOB_ID": "17",
        "DRAY_USER_ID": "1000",
        "DRAY_IMAGE_ID": "ab" * 32,
        "DRAY_IMAGE_ROOT": "/run/images/x",
    }
    after = HookCall("17", 1000, "ab" * 32, Path("/x"), inside=Path("/pins/17.1"))
    await run_hooks([hook(f"echo $DRAY_INSIDE > {out}")], after, Deadline.after(30))
    assert out.read_text() == "/pins/17.1\n"


async def test_the_first_that_fails_ends_it_and_says_why(tmp_path: Path) -> None:
    bad = hook("echo 'no \x1b[31mlicence' >&2; echo more >&2; exit 3")
    message = await failure(hook(f"touch {tmp_path}/one"), bad, hook(f"touch {tmp_path}/two"))
    assert message == "a hook of this site, /bin/sh, failed: no [31mlicence"
    assert (tmp_path / "one").exists()
    assert not (tmp_path / "two").exists()
    assert (await failure(hook("exit 3"))).endswith("ended with status 3")
    assert (await failure(hook("kill -9 $$"))).endswith("ended with signal 9")
    gone = Hook(run=("/not/there",))
    assert (await failure(gone)).endswith("cannot be run: No such file or directory")


async def test_one_that_talks_too_much_is_no_burden() -> None:
    script = (
        "i=0; while [ $i -lt 40000 ]; do echo 'a line of what nobody reads' >&2; i=$((i+1)); done"
    )
    await run_hooks([hook(script)], CALL, Deadline.after(60))
    assert len(await failure(hook("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1"))) < 400


@pytest.mark.parametrize(("seconds", "within"), [(0.3, 30.0), (30.0, 0.3)])
async def test_one_that_hangs_is_killed_with_all_that_it_started(
    tmp_path: Path, seconds: float, within: float
) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! > {pids}; echo $$ >> {pids}; wait"
    message = await failure(hook(script, seconds=seconds), within=within)
    assert "did not end within" in message
    for pid in pids.read_text().split():
        await eventually(partial(_is_gone, int(pid)), within=10)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
