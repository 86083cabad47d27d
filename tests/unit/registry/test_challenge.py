"""WWW-Authenticate headers as registries send them, and as nobody should."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.converter.registry.challenge import Challenge, parse_challenges

HUB = (
    'Bearer realm="https://auth.example.org/token",service="registry.example.org",'
    'scope="repository:a/b:pull,push"'
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            HUB,
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.example.org/token",
                        "service": "registry.example.org",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ('Basic realm="x"', [Challenge("basic", {"realm": "x"})]),
        ("BASIC Realm=x", [Challenge("basic", {"realm": "x"})]),
        (
            'Negotiate, Basic realm="a, b=\\"c\\"" , charset = "UTF-8"',
            [Challenge("negotiate"), Challenge("basic", {"realm": 'a, b="c"', "charset": "UTF-8"})],
        ),
        (
            "Negotiate oRQwEqADCgEB==, Bearer realm=https://h:5000/t?x=1,service=s",
            [
                Challenge("negotiate"),
                Challenge("bearer", {"realm": "https://h:5000/t?x=1", "service": "s"}),
            ],
        ),
        (",, Basic ,realm=a,,realm=b", [Challenge("basic", {"realm": "a"})]),
        ('Bearer realm="https://h/t', [Challenge("bearer")]),
        ('realm="x"', []),
        ("", []),
        ('"', []),
        ("Basic", [Challenge("basic")]),
    ],
)
def test_reads_what_can_be_read(header: str, expected: list[Challenge]) -> None:
    assert list(parse_challenges([header])) == expected


def test_takes_the_challenges_of_all_headers_in_order() -> None:
    schemes = [c.scheme for c in parse_challenges(['Basic realm="x"', HUB])]
    assert schemes == ["basic", "bearer"]


words = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
values = st.text(st.characters(codec="latin-1"), max_size=30)
challenges = st.lists(
    st.builds(Challenge, words, st.dictionaries(words, values, min_size=1, max_size=4)),
    max_size=4,
)


@given(challenges)
def test_whatever_is_written_correctly_is_read_back(written: list[Challenge]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        c.scheme + " " + ", ".join(f"{k}={quoted(v)}" for k, v in c.params.items()) for c in written
    )
    assert list(parse_challenges([header])) == written


@given(st.text(max_size=300) | st.text('abz=", \\\t~/+', max_size=60))
def test_nothing_makes_it_fail(header: str) -> None:
    for challenge in parse_challenges([header]):
        assert challenge.scheme
        assert challenge.scheme == challenge.scheme.lower()


def test_a_huge_header_is_read_only_in_part() -> None:
    found = parse_challenges(["Basic a=b, " * 100_000])
    assert 0 < len(found) < 1000
