"""What slurmctld runs of ours, without a slurmctld: its functions are called as it calls them."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy/slurm"
INTERPRETERS = ("lua5.1", "lua5.3", "lua5.4", "lua")
SLURM = """
slurm = { SUCCESS = 0, ERROR = -1 }
local function said(_, ...) print("log: " .. string.format(...)) end
slurm.log_info = function(...) said(nil, ...) end
slurm.log_error = slurm.log_info
"""
# A stand-in for `dray`: it says what it was asked, and answers as the test wants.
DRAY = """#!/bin/sh
job="$SLURM_JOB_ID $SLURM_JOB_UID $SLURM_JOB_NODELIST $SPANK_DRAY_IMAGES"
printf '%s\\n' "$job: $*" >>"$0.asked"
cat "$0.answer"
exit "$(cat "$0.status")"
"""
IMAGE_ID = "ab" * 32
PINNED = f"{IMAGE_ID},{'cd' * 32},4096"


class Lua:
    """One of our files, in an interpreter of its own for each call, as Slurm has it."""

    def __init__(self, directory: Path, name: str) -> None:
        found = [program for program in INTERPRETERS if shutil.which(program)]
        if not found:
            pytest.skip("needs a Lua interpreter: install Debian's package lua5.3")
        self._program = found[0]
        self.directory = directory
        self.dray = directory / "it's dray"
        self.dray.write_text(DRAY)
        self.dray.chmod(0o755)
        self.answers("", 0)
        conf = directory / "hooks.conf"
        conf.write_text(f'DRAY="{self.dray}"\nTIMEOUT=/usr/bin/timeout\nSCONTROL=/bin/false\n')
        self._file = directory / name
        text = (DEPLOY / name).read_text()
        self._file.write_text(text.replace("/etc/dray/hooks.conf", str(conf)))
        self.script = directory / "script"

    def answers(self, text: str, status: int) -> None:
        Path(f"{self.dray}.answer").write_text(text)
        Path(f"{self.dray}.status").write_text(str(status))

    def asked(self) -> list[str]:
        path = Path(f"{self.dray}.asked")
        return path.read_text().splitlines() if path.exists() else []

    def run(self, code: str) -> str:
        whole = f"{SLURM}dofile({json.dumps(str(self._file))})\n{code}"
        done = subprocess.run(
            [self._program, "-"],
            input=whole,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return done.stdout

    def call(self, function: str, *arguments: str | int) -> tuple[int, str]:
        """What a function of burst_buffer.lua returns: a code, and perhaps words."""
        given = ", ".join(json.dumps(str(argument)) for argument in arguments)
        out = self.run(f"local rc, text = {function}({given})\nprint(rc, text or '')")
        code, _, text = out.splitlines()[-1].partition("\t")
        return int(code), text

    def submit(self, **job: Any) -> str | None:
        """The burst buffer of a job after job_submit.lua."""
        fields = ", ".join(f"{name} = {_lua(value)}" for name, value in job.items())
        out = self.run(
            f"local job = {{ {fields} }}\n"
            "assert(slurm_job_submit(job, {}, 1000) == slurm.SUCCESS)\n"
            "print(job.burst_buffer)"
        )
        return None if out == "nil\n" else out.removesuffix("\n")


def _lua(value: Any) -> str:
    if isinstance(value, list):  # Slurm counts from 0
        return "{ " + ", ".join(f"[{i}] = {json.dumps(v)}" for i, v in enumerate(value)) + " }"
    return json.dumps(value)


@pytest.fixture
def buffer(tmp_path: Path) -> Lua:
    return Lua(tmp_path, "burst_buffer.lua")


@pytest.fixture
def submission(tmp_path: Path) -> Lua:
    return Lua(tmp_path, "job_submit.lua")


@pytest.mark.parametrize("name", ["burst_buffer.lua", "job_submit.lua"])
def test_every_version_of_lua_that_is_here_can_read_it(name: str) -> None:
    compilers = [program for program in ("luac5.1", "luac5.3", "luac5.4") if shutil.which(program)]
    if not compilers:
        pytest.skip("needs a Lua compiler: install Debian's package lua5.3")
    for compiler in compilers:
        subprocess.run([compiler, "-p", DEPLOY / name], check=True)


def test_all_that_slurm_wants_is_there(buffer: Lua) -> None:
    stages = (
        "job_process pools job_teardown setup data_in test_data_in real_size paths pre_run "
        "post_run data_out test_data_out get_status"
    )
    for stage in stages.split():
        assert buffer.run(f"print(type(slurm_bb_{stage}))") == "function\n", stage


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("#BB_LUA dray image=host:5000/group/app:1.0", None),
        ("#BB_LUA dray image=app@sha256:0123 image=[::1]:5000/b system=hpc-1", None),
        ("#BB_LUA pool=other capacity=1G", None),
        ("#BB_LUA draytwo nonsense", None),
        ("echo first\n#BB_LUA dray nonsense", None),
        ("#BB_LUA dray image=$(id)", "'$(id)' names no image"),
        ("#BB_LUA dray image=", "'' names no image"),
        ("#BB_LUA dray image=--help", "'--help' names no image"),
        ("#BB_LUA dray image=a'b", "'a'b' names no image"),
        ("#BB_LUA dray system=../x image=a", "'../x' names no system"),
        ("#BB_LUA dray alpine:3", "write '#BB_LUA dray image=REFERENCE', without 'alpine:3'"),
        (f"#BB_LUA dray image={'a' * 513}", f"'{'a' * 513}' names no image"),
        ("#BB_LUA dray" + " image=a" * 33, "a job may have at most 32 images"),
    ],
)
def test_what_a_job_says_is_looked_at_when_it_is_submitted(
    buffer: Lua, line: str, complaint: str | None
) -> None:
    buffer.script.write_text(f"#!/bin/bash\n#SBATCH -N 2\n{line}\nsrun true\n")
    expected = (0, "") if complaint is None else (-1, complaint)
    assert buffer.call("slurm_bb_job_process", str(buffer.script)) == expected


def test_a_job_from_its_submission_to_its_end(buffer: Lua) -> None:
    buffer.script.write_text("#!/bin/bash\n#BB_LUA dray image=app:1 image=b system=hpc\n")
    script = str(buffer.script)
    assert buffer.call("slurm_bb_setup", 7, 1000, 1000, "(null)", 0, script) == (0, "")
    buffer.answers(f"DRAY_IMAGE_ID={IMAGE_ID}\nPATH=/evil\nDRAY_IMAGES={PINNED}\n", 0)
    assert buffer.call("slurm_bb_data_in", 7, script) == (0, "")
    path_file = buffer.directory / "path"
    path_file.touch()
    assert buffer.call("slurm_bb_paths", 7, script, str(path_file)) == (0, "")
    assert path_file.read_text() == f"DRAY_IMAGE_ID={IMAGE_ID}\nDRAY_IMAGES={PINNED}\n"
    code = f"slurm_bb_pre_run('7', {json.dumps(script)}, '1000', '1000', {{ nodes = 'n[1-2]' }})"
    buffer.run(code)
    assert buffer.call("slurm_bb_job_teardown", 7, script, "false") == (0, "")
    assert buffer.asked() == [
        "   : hook stage --uid 1000 --wait 82800 --system=hpc -- app:1 b",
        f"7 1000 n[1-2] {PINNED}: hook allocate --strict",
        "7   : hook release --strict",
    ]
    assert not list(buffer.directory.glob("dray.*"))
    # Again, as after a restart of slurmctld.
    assert buffer.call("slurm_bb_job_teardown", 7, script, "true") == (0, "")


def test_a_failure_is_one_line_for_the_user(buffer: Lua) -> None:
    buffer.script.write_text("#!/bin/bash\n#BB_LUA dray image=app:1\n")
    buffer.call("slurm_bb_setup", 7, 1000, 1000, "(null)", 0, str(buffer.script))
    buffer.answers("a warning before\ndray: there is no app:1\x1b; ask \u00e9\n\n", 1)
    code, text = buffer.call("slurm_bb_data_in", 7, str(buffer.script))
    assert code == -1
    assert text == "dray: there is no app:1?; ask ??"
    buffer.answers("x" * 1000, 1)
    assert len(buffer.call("slurm_bb_data_in", 7, str(buffer.script))[1]) < 320
    # What the gateway does not hear ends no job.
    assert buffer.call("slurm_bb_job_teardown", 7, str(buffer.script), "true") == (0, "")
    assert buffer.call("slurm_bb_pre_run", 7, str(buffer.script))[0] == 0


def test_an_owner_who_is_not_known_is_nobody_else(buffer: Lua) -> None:
    buffer.script.write_text("#!/bin/bash\n#BB_LUA dray image=app:1\n")
    code, text = buffer.call("slurm_bb_data_in", 7, str(buffer.script))
    assert (code, text) == (-1, "dray: it is not known whose job this is")
    assert buffer.asked() == []


def test_only_jobs_whose_image_is_missing_are_staged(submission: Lua) -> None:
    missing = ["DRAY_IMAGE=app:1,id:" + IMAGE_ID, "DRAY_PULLS=p1", "DRAY_SYSTEM=hpc", "OTHER=x"]
    line = f"#BB_LUA dray image=app:1 image=id:{IMAGE_ID} system=hpc"
    assert submission.submit(user_id=1000, spank_job_env=missing) == line
    own = submission.submit(user_id=1000, spank_job_env=missing, burst_buffer="#BB_LUA pool=p")
    assert own == f"#BB_LUA pool=p\n{line}"
    ready = ["DRAY_IMAGE=app:1", f"DRAY_IMAGES={PINNED}"]
    assert submission.submit(user_id=1000, spank_job_env=ready) is None
    assert submission.submit(user_id=1000) is None
    # Slurm gives root no burst buffers, and would refuse the job.
    assert submission.submit(user_id=0, spank_job_env=missing) is None
    written = "#!/bin/bash\n#BB_LUA dray image=app:1\n"
    assert submission.submit(user_id=1000, spank_job_env=missing, script=written) is None
