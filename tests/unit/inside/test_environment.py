"""Who has the last word on a variable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.inside.environment import (
    DEFAULT_PATH,
    Changes,
    VariableRefusedError,
    compose,
    parse_env_file,
)

HOST = {
    "HOME": "/home/ada",
    "PATH": "/host/bin",
    "SLURM_PROCID": "3",
    "PMIX_RANK": "3",
    "OMP_NUM_THREADS": "8",
    "LD_PRELOAD": "/host/lib/evil.so",
    "LD_LIBRARY_PATH": "/host/lib",
    "DRAY_TOKEN": "secret",
    "EDITOR": "vi",
    "A": "host",
}


def test_each_has_a_later_word_than_the_one_before() -> None:
    image = ["A=image", "B=image", "C=image", "D=image", "PATH=/image/bin"]
    site = Changes(set={"D": "site"}, prepend={"PATH": "/site/bin"}, append={"E": "/x"})
    module = Changes(set={"C": "module", "D": "module"}, append={"E": "/m"}, unset=("EDITOR",))
    env = compose(
        HOST,
        image,
        file="B=file\nC=file\n",
        options=["C=option", "EDITOR"],
        changes=[module, site],
        whole_host=True,
    )
    assert {name: env[name] for name in "ABCD"} == {
        "A": "image",
        "B": "file",
        "C": "module",
        "D": "site",
    }
    assert env["PATH"] == "/site/bin:/image/bin"
    assert env["E"] == "/m:/x"
    assert "EDITOR" not in env


@pytest.mark.parametrize("whole", [False, True])
def test_the_host_s_loader_and_path_never_come_along(whole: bool) -> None:
    env = compose(HOST, [], whole_host=whole)
    assert "LD_PRELOAD" not in env
    assert "LD_LIBRARY_PATH" not in env
    assert "DRAY_TOKEN" not in env
    assert env["PATH"] == DEFAULT_PATH
    assert ("EDITOR" in env) == whole
    assert (env["SLURM_PROCID"], env["PMIX_RANK"], env["OMP_NUM_THREADS"]) == ("3", "3", "8")


def test_an_option_without_a_value_takes_the_host_s() -> None:
    assert compose(HOST, [], options=["EDITOR", "NOT_THERE"])["EDITOR"] == "vi"
    assert "NOT_THERE" not in compose(HOST, [], options=["EDITOR", "NOT_THERE"])


@pytest.mark.parametrize("option", ["", "=x", "A=\0"])
def test_an_option_that_names_nothing_is_refused(option: str) -> None:
    with pytest.raises(VariableRefusedError, match="NAME=VALUE"):
        compose(HOST, [], options=[option])


def test_an_environment_file_is_read_as_docker_reads_it() -> None:
    text = '# comment\n\nA=1\n  B=two words  \nC="kept"\nD=x=y\nE=\n'
    assert parse_env_file(text) == {
        "A": "1",
        "B": "two words  ",
        "C": '"kept"',
        "D": "x=y",
        "E": "",
    }


@pytest.mark.parametrize("line", ["A", "=x", "A =1", "export A=1"])
def test_a_line_that_is_wrong_is_named(line: str) -> None:
    with pytest.raises(VariableRefusedError, match="line 2"):
        parse_env_file(f"OK=1\n{line}\n")


@given(st.text(max_size=80))
def test_any_file_is_read_or_refused(text: str) -> None:
    try:
        env = parse_env_file(text)
    except VariableRefusedError:
        return
    assert all(name and "=" not in name and "\0" not in name for name in env)
