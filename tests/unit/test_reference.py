"""References: Docker's normalisation, canonical text that round-trips, and useful refusals."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidReferenceError
from shared.reference import ImageReference, parse_reference

SHA = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
        ("group/tool", "docker.io/group/tool:latest"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("index.docker.io/ubuntu:1", "docker.io/library/ubuntu:1"),
        ("docker:dind", "docker.io/library/docker:dind"),
        ("docker:ubuntu:22.04", "docker.io/library/ubuntu:22.04"),
        ("docker:group/tool", "docker.io/group/tool:latest"),
        ("docker:quay.io/a/b:1", "quay.io/a/b:1"),
        ("docker:127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b:1"),
        ("docker:[::1]:5000/x", "[::1]:5000/x:latest"),
        (f"docker:repo@{SHA}", f"docker.io/library/repo@{SHA}"),
        ("docker://ubuntu", "docker.io/library/ubuntu:latest"),
        ("docker://h.io/a:1", "h.io/a:1"),
        ("docker:5000/x:y", "docker:5000/x:y"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("host:5000/a/b:tag", "host:5000/a/b:tag"),
        ("host:05000/a", "host:5000/a:latest"),
        ("Registry.Example.ORG/a/b", "registry.example.org/a/b:latest"),
        ("127.0.0.1:5000/a_b/c__d/e---f:v1.2-3_4", "127.0.0.1:5000/a_b/c__d/e---f:v1.2-3_4"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("[::1]/x", "[::1]/x:latest"),
        ("[2001:DB8:0:0::1]/x:y", "[2001:db8::1]/x:y"),
        (f"repo@{SHA}", f"docker.io/library/repo@{SHA}"),
        (f"repo:tag@{SHA}", f"docker.io/library/repo:tag@{SHA}"),
        (f"h.io:1/r:t@{SHA}", f"h.io:1/r:t@{SHA}"),
        ("a.b/" + "c" * 255, "a.b/" + "c" * 255 + ":latest"),
        ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128),
    ],
)
def test_normalises_as_docker_does(text: str, canonical: str) -> None:
    assert str(parse_reference(text)) == canonical


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" ubuntu", "space"),
        ("ubuntu\n", "space"),
        ("ubuntu\x00", "ASCII"),
        ("übuntu", "ASCII"),
        ("a" * 513, "longer than 512"),
        ("a.b/" + "c" * 256, "longer than 255"),
        (".".join(["h" * 62] * 4) + ":65535/" + "c" * 250, "in full"),
        ("https://docker.io/ubuntu", "://"),
        ("Ubuntu", "lower case"),
        ("Group/tool", "lower case"),
        ("ubuntu:", "tag"),
        ("ubuntu:-x", "tag"),
        ("ubuntu:.x", "tag"),
        ("ubuntu:a:b", "tag"),
        ("x:" + "t" * 129, "tag"),
        ("docker:ubuntu:-x", "tag"),
        ("docker:docker:ubuntu:22.04", "tag"),
        ("docker:", "tag"),
        ("docker://", "missing"),
        ("docker:http://h.io/a", "://"),
        ("docker:123456/a:b:c", "tag"),
        ("host:port/a", "port"),
        ("host:0/a", "port"),
        ("host:65536/a", "port"),
        ("host:/a", "port"),
        ("host:5000/", "missing"),
        ("/a", "nothing between"),
        ("a//b", "nothing between"),
        ("a/b/", "nothing between"),
        ("a.b/../c", "name part"),
        ("../c", "host name"),
        ("a/../b", "name part"),
        ("a/.b", "name part"),
        ("a/b___c", "name part"),
        ("a/b..c", "name part"),
        ("a/b%2fc", "name part"),
        ("a/b?c=d", "name part"),
        ("a/b#c", "name part"),
        ("-h.org/a", "host name"),
        ("h_h.org/a", "host name"),
        ("h.org./a", "host name"),
        ("user:pass@h.org/a", "after '@'"),
        ("[::1/x", "host or host:port"),
        ("[::g]:5/x", "IPv6"),
        ("[fe80::1%25eth0]/x", "zone"),
        ("[::1]x/y", "host or host:port"),
        ("x@", "after '@'"),
        ("x@sha256:abc", "after '@'"),
        ("x@sha256:" + "AB" * 32, "after '@'"),
        ("x@sha512:" + "ab" * 64, "after '@'"),
        (f"x@{SHA}@{SHA}", "after '@'"),
        (f"x@{SHA}:tag", "after '@'"),
        (f"@{SHA}", "missing"),
        (":tag", "missing"),
        ("ab" * 32, "image id"),
    ],
)
def test_refuses_with_a_reason_and_a_right_example(text: str, why: str) -> None:
    with pytest.raises(InvalidReferenceError, match=re.escape(why)) as caught:
        parse_reference(text)
    assert "ubuntu:24.04" in str(caught.value)
    assert len(str(caught.value)) < 500


labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
dotted = st.lists(labels, min_size=2, max_size=4).map(".".join)
hosts = st.one_of(
    st.just("localhost"), dotted, st.ip_addresses(v=6).map(lambda a: f"[{a.compressed}]")
)
ports = st.one_of(st.just(""), st.integers(1, 65535).map(lambda p: f":{p}"))
registries = st.builds(str.__add__, hosts, ports).filter(lambda r: r != "index.docker.io")
components = st.from_regex(r"[a-z0-9]{1,6}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}", fullmatch=True)
repositories = st.lists(components, min_size=1, max_size=4).map("/".join)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
digests = st.binary(min_size=32, max_size=32).map(lambda b: "sha256:" + b.hex())


@given(registries, repositories, st.none() | tags, st.none() | digests)
def test_canonical_text_round_trips(
    registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    if tag is None and digest is None:
        tag = "latest"
    reference = ImageReference(registry, repository, tag, digest)
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=600) | st.text("ab:/@.[]-_%sha2560123456789", max_size=100))
def test_any_text_is_refused_or_is_canonical_after_one_pass(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReferenceError:
        return
    assert parse_reference(str(reference)) == reference
    assert ".." not in reference.repository.split("/")


def test_the_digest_pins_and_the_tag_only_names() -> None:
    reference = parse_reference("h.io/a/b:1")
    assert reference.target == "1"
    pinned = reference.pinned(SHA)
    assert (pinned.target, str(pinned), pinned.name) == (SHA, f"h.io/a/b:1@{SHA}", "h.io/a/b")
    with pytest.raises(InvalidReferenceError):
        reference.pinned("sha256:../../x")
