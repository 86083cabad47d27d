"""Where stdout leads: what cannot be written is told, and a reader may leave at any time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.errors import EXIT_READER_GONE

DRAY = "from cli.main import main; main()"
LONG = "from cli.output import guarded\nimport sys\nsys.exit(guarded(lambda: print('x' * 10**7)))"
FULL = Path("/dev/full")

needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def _run(
    program: str, *arguments: str, stdout: int = subprocess.PIPE, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | env,
        text=True,
        timeout=60,
        check=False,
    )


@needs_full
@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (DRAY, ("--help",)),
        (DRAY, ("--version",)),
        (DRAY, ("completion", "bash")),
        (DRAY, ("doctor", "--json")),
        (DRAY, ("store", "--help")),
        (LONG, ()),
    ],
)
def test_a_full_disk_is_told_in_one_line(program: str, arguments: tuple[str, ...]) -> None:
    with FULL.open("w") as full:
        ended = _run(program, *arguments, stdout=full.fileno())
    assert ended.returncode == 1
    assert ended.stderr == (
        "dray: cannot write the output: No space left on device; send it elsewhere [output_lost]\n"
    )


@pytest.mark.parametrize(("program", "arguments"), [(DRAY, ("--help",)), (LONG, ())])
def test_a_reader_that_leaves_ends_it_silently(program: str, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = _run(program, *arguments, stdout=writing)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (EXIT_READER_GONE, "")


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process = subprocess.Popen([sys.executable, "-c", LONG], stdout=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as content:
        assert len(content.read()) == 10**7 + 1
    assert process.wait(60) == 0


def test_started_without_stdout_it_works_all_the_same() -> None:
    again = [sys.executable, "-c", DRAY, "--version"]
    ended = _run(f"import os\nos.close(1)\nos.execv({sys.executable!r}, {again!r})")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_the_terminal_s_alphabet_lacks_ends_nothing() -> None:
    ended = _run(DRAY, "pull", "--help", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert ended.returncode == 0
    assert "name@sha256:" in ended.stdout


def test_a_file_that_cannot_be_read_is_named_without_a_traceback() -> None:
    program = "from cli.output import guarded\nimport sys\nsys.exit(guarded(lambda: open('/none')))"
    ended = _run(program)
    assert ended.returncode == 1
    assert ended.stderr == "dray: /none: No such file or directory [os_error]\n"


def test_ctrl_c_has_the_usual_exit_code() -> None:
    program = "from cli.output import guarded\nimport sys\ndef stop(): raise KeyboardInterrupt\n"
    ended = _run(f"{program}sys.exit(guarded(stop))")
    assert (ended.returncode, ended.stderr) == (130, "")
