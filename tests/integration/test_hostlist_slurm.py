"""Hostlists against Slurm's own reading and writing of them."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.hostlist import HostlistError, expand, fold

Scontrol = Callable[..., tuple[str, ...] | None]

TABLE = (
    "login1",
    "nid[001-128,200]",
    "nid[001-128,200],login1,login2",
    "r[1-2]n[01-04]",
    "r[1-2]c[0-1]s[08-11]",
    "n[1-2]3[4-5]",
    "n[8-11]",
    "n[08-11]",
    "n[001-3]",
    "n[098-101]",
    "n[01,1]",
    "n[1-1]",
    "[1-3]",
    "a-b.c_d[1-2]",
)
REFUSED_BY_BOTH = ("n[3-1]", "n[]", "n[1,]", "n[1-a]", "n[1-999999999]")


@pytest.fixture
def scontrol(tmp_path: Path) -> Scontrol:
    """Its answer in lines; None: it refused."""
    program = shutil.which("scontrol")
    if program is None:
        pytest.skip("needs scontrol: install slurm-client")
    settings = tmp_path / "slurm.conf"
    settings.write_text(
        "ClusterName=x\nSlurmctldHost=localhost\nNodeName=n1\nPartitionName=p Nodes=ALL\n"
    )

    def ask(*question: str) -> tuple[str, ...] | None:
        done = subprocess.run(
            [program, "show", *question],
            env={**os.environ, "SLURM_CONF": str(settings)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        refused = done.returncode != 0 or "Invalid" in done.stdout + done.stderr
        return None if refused else tuple(done.stdout.split())

    return ask


def made_up(chance: random.Random) -> str:
    """Any hostlist that Slurm reads, without names that are there twice."""
    entries = []
    for number in range(chance.randint(1, 4)):
        entry = f"{chance.choice('abc')}{number}-"
        for _ in range(chance.randint(1, 2)):
            low, width = chance.randint(0, 120), chance.choice((1, 2, 4))
            ranges = f"{low:0{width}}-{low + chance.randint(0, 30)}"
            if chance.random() < 0.5:
                ranges += f",{low + 40 + chance.randint(0, 9):0{width}}"
            entry += f"{chance.choice(('', 'x', 'rack'))}[{ranges}]"
        entries.append(entry)
    return ",".join(entries)


def test_slurm_reads_what_we_read(scontrol: Scontrol) -> None:
    chance = random.Random(20)
    for text in (*TABLE, *(made_up(chance) for _ in range(60))):
        theirs = scontrol("hostnames", text)
        assert theirs is not None, text
        if text.count("[") > 2:  # it takes the brackets of these in an order of its own
            assert sorted(theirs) == sorted(expand(text))
        else:
            assert theirs == expand(text), text


def test_slurm_refuses_what_we_refuse(scontrol: Scontrol) -> None:
    for text in REFUSED_BY_BOTH:
        assert scontrol("hostnames", text) is None, text
        with pytest.raises(HostlistError):
            expand(text)


def test_slurm_reads_what_we_fold_and_we_what_it_folds(scontrol: Scontrol) -> None:
    chance = random.Random(30)
    for _ in range(40):
        names = list(expand(made_up(chance)))
        names = chance.sample(names, min(len(names), 200))
        theirs = scontrol("hostlistsorted", ",".join(names))
        assert theirs is not None
        assert sorted(expand(theirs[0])) == sorted(names)
        unfolded = scontrol("hostnames", fold(names))
        assert unfolded is not None
        assert sorted(unfolded) == sorted(names)
    names = [f"nid{number:03}" for number in (*range(1, 129), 200)]
    assert scontrol("hostlistsorted", ",".join(names)) == (fold(names),)
