"""Hostlists: what they mean, that folding loses nothing, and what they are refused for."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidInputError
from shared.hostlist import MOST_NAMES, HostlistError, expand, fold

NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,12}", fullmatch=True)
NUMBERED = st.builds(
    "{}{}{}".format,
    st.sampled_from(["n", "nid", "r1n", "r2n", "x1000c", ""]),
    st.integers(0, 1200).flatmap(
        lambda number: st.sampled_from([str(number), f"{number:03}", f"{number:05}"])
    ),
    st.sampled_from(["", "", "-ib", ".cluster2", "b0"]),
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("login1", "login1"),
        ("nid[001-003,200]", "nid001 nid002 nid003 nid200"),
        ("r[1-2]n[01-02]", "r1n01 r1n02 r2n01 r2n02"),
        ("n[1-2]-ib,a,b[7]", "n1-ib n2-ib a b7"),
        ("n[8-11]", "n8 n9 n10 n11"),
        ("n[08-11]", "n08 n09 n10 n11"),
        ("n[001-3]", "n001 n002 n003"),
        ("n[098-101]", "n098 n099 n100 n101"),
        ("n[01,1]", "n01 n1"),
        ("[1-3]", "1 2 3"),
        ("n[1-2]3[4-5]", "n134 n135 n234 n235"),
        ("a,b,a,n[1-2,2-3]", "a b n1 n2 n3"),
        ("  a,b\n", "a b"),
    ],
)
def test_what_hostlists_mean(text: str, names: str) -> None:
    assert expand(text) == tuple(names.split())


@pytest.mark.parametrize(
    ("text", "problem", "at"),
    [
        ("", "no name", None),
        ("  ", "no name", None),
        ("a,,b", "a name is missing", 3),
        ("a,", "a name is missing", 3),
        (",a", "a name is missing", 1),
        ("n[1-2", "'[' without its ']'", 2),
        ("n1]", "']' without its '['", 3),
        ("n[]", "a number is missing", 3),
        ("n[1,]", "a number is missing", 5),
        ("n[1-]", "write numbers and ranges", 4),
        ("n[-1]", "a number is missing", 3),
        ("n[[1-2]]", "a number is missing", 3),
        ("n[1-2-3]", "write numbers and ranges", 6),
        ("n[3-1]", "3-1 runs backwards", 3),
        ("n[1-a]", "write numbers and ranges", 4),
        ("a b", "' ' is in no name", 2),
        ("a/b", "'/' is in no name", 2),
        ("-n[1-3]", "'-n1' is no name", 1),
        ("a,.[1-3]", "'.1' is no name", 3),
        ("é", "'é' is in no name", 1),
        ("n[\u0661-\u0663]", "a number is missing", 3),
        ("ok,n[1-999999999]", "more than 100000 names", 4),
        ("n[0-999]x[0-999]", "more than 100000 names", 1),
        (f"n[{'9' * 300}]", "write numbers", 21),
        ("x" * 254, "at most 253 characters", 1),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(
    text: str, problem: str, at: int | None
) -> None:
    with pytest.raises(HostlistError) as refused:
        expand(text)
    assert isinstance(refused.value, InvalidInputError)
    assert problem in refused.value.message
    if at is not None:
        assert f"(character {at}," in refused.value.message
    assert len(refused.value.message) < 300


def test_the_bound_is_for_all_of_it_and_costs_nothing_to_exceed() -> None:
    assert len(expand("n[1-100000]")) == MOST_NAMES
    began = time.thread_time()
    for text in ("n[1-99999],m[1-2]", "[0-99]" * 200, "n[1-999999999999999999]"):
        with pytest.raises(HostlistError, match="more than 100000"):
            expand(text)
    assert time.thread_time() - began < 1
    assert len(expand("n[1-3]", 3)) == 3
    with pytest.raises(HostlistError, match="more than 3 names"):
        expand("n[1-3],m", 3)


# Few different letters and digits: names that are each other's beginnings.
ALIKE = st.from_regex(r"[ab1][ab01]{0,3}", fullmatch=True)


@given(st.lists(st.one_of(NAMES, NUMBERED, ALIKE), min_size=1, max_size=60))
def test_what_is_folded_unfolds_to_the_same_names(names: list[str]) -> None:
    folded = fold(names)
    assert sorted(expand(folded)) == sorted(set(names))
    assert len(folded) <= len(",".join(set(names))) + 2 * len(names)
    assert fold(expand(folded)) == folded


@given(st.text(st.sampled_from("an019[]-,._ "), max_size=24))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    try:
        names = expand(text)
    except HostlistError:
        return
    assert names
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}", name) for name in names)
    assert expand(fold(names))


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ([f"nid{n:03}" for n in range(1, 129)], "nid[001-128]"),
        (["n8", "n9", "n10", "n11"], "n[8-11]"),
        (["n098", "n099", "n100"], "n[098-100]"),
        (["n1", "n01"], "n[1,01]"),
        (["login1"], "login1"),
        (["b", "a"], "a,b"),
        (["b2", "b", "b1"], "b,b[1-2]"),
        (["n2", "n1", "n1", "n4"], "n[1-2,4]"),
        ([f"nid{n}.site2" for n in (1, 2, 3)], "nid[1-3].site[2]"),
        ([f"nid{n}-ib" for n in (1, 2, 3)], "nid[1-3]-ib"),
        (["r1n1", "r1n2", "r2n1"], "r1n[1-2],r2n1"),
        ([], ""),
    ],
)
def test_what_names_are_folded_to(names: list[str], folded: str) -> None:
    assert fold(names) == folded
