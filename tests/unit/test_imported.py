"""Names of imported images."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import InvalidReferenceError
from shared.imported import (
    MAX_NAME,
    canonical,
    is_imported,
    is_pinned,
    parse_imported,
    pinned,
    typed,
    untyped,
)
from shared.reference import parse_reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("load_test", "custom:load_test:latest"),
        ("custom:load_test:v1", "custom:load_test:v1"),
        ("Group/Tool-2.x:V_1", "custom:Group/Tool-2.x:V_1"),
        ("docker.io/library/ubuntu:24.04", "custom:docker.io/library/ubuntu:24.04"),
        (f"tool@{DIGEST}", f"custom:tool@{DIGEST}"),
        ("a" * MAX_NAME, f"custom:{'a' * MAX_NAME}:latest"),
    ],
)
def test_names(text: str, found: str) -> None:
    assert str(parse_imported(text)) == found
    assert canonical(found) == found
    assert untyped(found) == found.removeprefix("custom:")
    assert typed("custom", untyped(found)) == typed("custom", found) == found


@pytest.mark.parametrize(
    "text",
    [
        "", "custom:", ":tag", "tool:", "tool:a:b", "../x", "a/../b", "a//b", "/a", "a/", ".a",
        "-a", "a b", "a\0b", "ä", "a#1", "a?b", "a%2Fb", "a" * (MAX_NAME + 1), "a:" + "t" * 129,
        "tool@sha256:short", "5000/app", "f" * 64, "a\n", "a.",
    ],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidReferenceError, match="imported image"):
        parse_imported(text)


def test_what_is_meant_by_custom() -> None:
    assert canonical("custom:tool") == "custom:tool:latest"
    assert canonical("docker:custom:tool") == "docker.io/library/custom:tool"
    assert canonical("custom:5000/app:1") == "custom:5000/app:1"
    assert parse_reference("custom:5000/app:1").registry == "custom:5000"
    assert not is_imported("custom:5000/app:1")
    assert not is_imported("custom")
    assert typed("docker", "alpine:3") == "alpine:3"


def test_what_a_name_stood_for_has_its_digest() -> None:
    assert pinned("custom:tool:1", DIGEST) == f"custom:tool@{DIGEST}"
    assert pinned("docker.io/library/debian:12", DIGEST) == f"docker.io/library/debian@{DIGEST}"
    assert is_pinned(pinned("custom:tool:1", DIGEST))
    assert not is_pinned("custom:tool:1")


@given(st.text(max_size=40))
@example("custom:a:b")
def test_a_name_is_its_own_canonical_form_and_leads_nowhere(text: str) -> None:
    try:
        found = str(parse_imported(text))
    except InvalidReferenceError:
        return
    assert canonical(found) == found
    assert is_imported(found)
    assert ".." not in found.split("/")
    assert "#" not in found  # which keys of owners' records have
