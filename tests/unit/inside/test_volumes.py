"""What users write for volumes, and where volumes may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.inside.errors import VolumeRefusedError
from shared.inside.volumes import MAX_VOLUMES, Volume, parse_volumes
from shared.inside.walk import parts

RESERVED = ("/global/common", "/home")


@pytest.mark.parametrize(
    ("text", "volumes"),
    [
        ("/a:/b", [Volume("/a", "/b")]),
        ("/a:/b:ro", [Volume("/a", "/b", read_only=True)]),
        ("/a:/b:rw;/c/d:/e//f/", [Volume("/a", "/b"), Volume("/c/d", "/e/f")]),
        (" /a:/b ; ; ", [Volume("/a", "/b")]),
        ("/a b:/with space", [Volume("/a b", "/with space")]),
        ("/x:/tmp", [Volume("/x", "/tmp")]),
        ("/x:/tmp:perNodeCache=size=200G", [Volume("/x", "/tmp", cache=200 << 30)]),
        (
            "/x:/y:perNodeCache=size=1tb,bs=4k,method=loop,fstype=xfs",
            [Volume("/x", "/y", cache=1 << 40)],
        ),
        ("/x:/etcetera", [Volume("/x", "/etcetera")]),
        ("/x:/global2", [Volume("/x", "/global2")]),
        ("$SCRATCH/in:/in;${SCRATCH}2:/out", [Volume("/s/in", "/in"), Volume("/s2", "/out")]),
    ],
)
def test_what_is_well_written(text: str, volumes: list[Volume]) -> None:
    assert list(parse_volumes([text], RESERVED, {"SCRATCH": "/s"})) == volumes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/a", "a source and a target"),
        ("/a:/b:ro:x", "a source and a target"),
        ("a:/b", "does not begin with '/'"),
        (":/b", "does not begin with '/'"),
        ("/a:b", "does not begin with '/'"),
        ("/a:/b:exec", "'exec' is none of ro"),
        ("/a:/b:ro,rw", "'ro,rw' is none"),
        ("/a:/b:perNodeCache", "needs a size"),
        ("/a:/b:perNodeCache=size=0G", "cannot be read"),
        ("/a:/b:perNodeCache=size=1G,fstype=ext4", "'fstype=ext4' cannot be read"),
        ("/a:/b:perNodeCache=size=100M", "must be 300M"),
        ("/a:/b:perNodeCache=size=999999P", "must be 300M"),
        ("/a:/b/../etc", "'..'"),
        ("/a:/b\n/c", "cannot be printed"),
        ("/a:/" + "x" * 5000, "too long"),
        ("$NOWHERE:/b", "$NOWHERE is not set"),
        ("/a:/", "cannot be at '/'"),
        ("/a:/etc", "would hide /etc"),
        ("/a:/etc/passwd", "would hide /etc"),
        ("/a://etc/./x", "would hide /etc"),
        ("/a:/proc/self", "would hide /proc"),
        ("/a:/sys", "would hide /sys"),
        ("/a:/dev/shm", "would hide /dev"),
        ("/a:/global", "would hide /global/common"),
        ("/a:/global/common/sw", "would hide /global/common"),
        ("/a:/home/ada", "would hide /home"),
        ("/a:/b;/c:/b/", "two volumes are at /b"),
    ],
)
def test_what_is_refused_says_why(text: str, says: str) -> None:
    with pytest.raises(VolumeRefusedError, match=says.replace("$", r"\$")):
        parse_volumes([text], RESERVED)


@pytest.mark.parametrize("value", ["/a:/etc", "/a;/b", "/$OTHER"])
def test_a_variable_brings_in_no_other_volume(value: str) -> None:
    """What was read once is handed on as text, and read again on the node."""
    with pytest.raises(VolumeRefusedError, match=r"\$SCRATCH is "):
        parse_volumes(["$SCRATCH/in:/in"], RESERVED, {"SCRATCH": value, "OTHER": "/x"})


def test_another_tmp_may_be_had_where_the_site_has_something_in_it() -> None:
    site = ("/tmp/site",)
    assert parse_volumes(["/x:/tmp"], site) == (Volume("/x", "/tmp"),)
    for target in ("/tmp/site", "/tmp/site/x"):
        with pytest.raises(VolumeRefusedError, match="/tmp/site"):
            parse_volumes([f"/x:{target}"], site)


def test_there_is_a_limit() -> None:
    with pytest.raises(VolumeRefusedError, match="may be"):
        parse_volumes([f"/a:/b{number}" for number in range(MAX_VOLUMES + 1)])


@given(st.text(alphabet="/:;.,abcroe$tpdvsy \0\n{}", max_size=60))
def test_whatever_is_accepted_is_nowhere_it_should_not_be(text: str) -> None:
    try:
        volumes = parse_volumes([text], RESERVED, {"a": "/v"})
    except VolumeRefusedError:
        return
    for volume in volumes:
        names = parts(volume.target)
        assert names
        assert names[0] not in {"etc", "proc", "sys", "dev", "home"}
        assert ".." not in names
        assert volume.source.startswith("/")
