"""`make fuzz`: looks for inputs that no test has yet, and says how to keep what it finds as one.

python -m tests.fuzz [TARGET|all] [SECONDS for each]
"""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

ROOT: Final = Path(__file__).parents[2]
PLACE: Final = ROOT / ".fuzz"
FOUND: Final = ROOT / "tests/fuzz/found"
GUIDED: Final = (sys.executable, "-m", "tests.fuzz.guided")
REDUCE: Final = (sys.executable, "-m", "tests.fuzz.reduce")
SECONDS: Final = 60
# For a single input of some kilobytes, on a machine that does other work too.
MOST_SECONDS: Final = 30
MOST_MEBIBYTES: Final = 1536
# Where trees are unpacked a thousand times a minute.
MEMORY: Final = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}
# What a fuzzer takes at most to end after its time.
GRACE: Final = 120
_FACTS: Final = re.compile(r"cov: (\d+) .*corp: (\d+)/")
_RUNS: Final = re.compile(r"number_of_executed_units:\s*(\d+)")


def main(words: list[str]) -> int:
    names = [word for word in words if not word.isdigit()]
    seconds = next((int(word) for word in words if word.isdigit()), SECONDS)
    if names in ([], ["all"]):
        names = list(TARGETS)
    if len(words) > 2 or not seconds or not set(names) <= set(TARGETS):
        print(f"usage: make fuzz ARGS='[TARGET|all] [SECONDS]', of {', '.join(TARGETS)}")
        return 2
    if importlib.util.find_spec("atheris") is None:
        print(
            "Fuzzing needs atheris, and there is none for this machine or this version of Python "
            f"({sys.version_info[0]}.{sys.version_info[1]}): its packages on PyPI are for Linux on "
            "x86_64 and Python 3.11 to 3.14. All targets run without it, too, by: "
            "make test ARGS=tests/fuzz"
        )
        return 2
    os.nice(19)
    findings = [finding for name in names for finding in look(name, seconds)]
    for name, path in findings:
        tell(name, path)
    return 1 if findings else 0


def look(name: str, seconds: int) -> list[tuple[str, Path]]:
    """Fuzz one target; returns its name with each input that failed."""
    corpus, crashes = PLACE / name / "corpus", PLACE / name / "crashes"
    for directory in (corpus, crashes):
        directory.mkdir(parents=True, exist_ok=True)
    before = written(crashes)
    target = TARGETS[name]
    fill(corpus, [*target.seeds(), *kept(name)])
    print(f"{name}: {seconds} s …", flush=True)
    output = PLACE / name / "output"
    with output.open("wb") as file:
        try:
            subprocess.run(
                [*GUIDED, name, *options(target, seconds, crashes), str(corpus)],
                cwd=ROOT,
                env={**os.environ, **MEMORY},
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=seconds + GRACE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            print(f"{name}: given up, it does not end; see {shown(output)}")
    said = output.read_text(encoding="utf-8", errors="replace")
    facts, runs = _FACTS.findall(said), _RUNS.findall(said)
    if facts and runs:
        covered, inputs = facts[-1]
        print(f"{name}: {int(runs[-1]):,} runs, {covered} places reached by {inputs} inputs")
    # What was found before may have been found again.
    new = sorted(path for path, _ in written(crashes) - before)
    if not runs and not new:
        print(f"{name}: the fuzzer itself failed; see {shown(output)}")
        return [(name, output)]
    return [(name, path) for path in new]


def written(directory: Path) -> set[tuple[Path, int]]:
    return {(path, path.stat().st_mtime_ns) for path in directory.iterdir()}


def options(target: Target, seconds: int, crashes: Path) -> list[str]:
    """Of libFuzzer."""
    return [
        f"-artifact_prefix={crashes}/",
        f"-max_total_time={seconds}",
        f"-timeout={MOST_SECONDS}",
        f"-report_slow_units={MOST_SECONDS}",
        f"-rss_limit_mb={MOST_MEBIBYTES}",
        f"-max_len={target.largest}",
        "-print_final_stats=1",
    ]


def fill(corpus: Path, inputs: Iterable[bytes]) -> None:
    for content in inputs:
        path = corpus / hashlib.sha256(content).hexdigest()[:40]
        path.write_bytes(content)


def kept(name: str) -> Iterable[bytes]:
    return [path.read_bytes() for path in sorted((FOUND / name).glob("*"))]


def tell(name: str, path: Path) -> None:
    """Reduce what was found, and say what to do with it."""
    print(f"\n{name} failed: {shown(path)}")
    if path.parent.name != "crashes":
        return
    try:
        done = subprocess.run(
            [*REDUCE, name, str(path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=GRACE,
            check=False,
        )
        print(done.stdout or f"it ends Python itself (status {done.returncode})")
    except subprocess.TimeoutExpired:
        print("it takes for ever")
    print(
        "make it a test, by a name that tells what is wrong, and see it fail:\n"
        f"  install -D {shown(path)} tests/fuzz/found/{name}/NAME\n"
        f"  make test ARGS='tests/fuzz -k {name}/NAME'"
    )


def shown(path: Path) -> Path:
    return path.relative_to(ROOT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
