"""What an inside says of itself is what its environment becomes."""

from hypothesis import given
from hypothesis import strategies as st

from shared.inside.environment import Changes
from shared.inside.manifest import (
    CHANGES,
    CMD,
    ENTRYPOINT,
    ENV,
    WORKDIR,
    Manifest,
    apply,
    read_words,
)


def test_the_files_say_it_all() -> None:
    manifest = Manifest(
        env=("PATH=/image/bin", "A=1", "odd", "=x"),
        changes=(Changes(prepend={"PATH": "/module/bin"}, unset=("A",)), Changes(set={"B": "2"})),
        workdir="/work here",
        entrypoint=("tini", "--"),
        cmd=("bash", "-c", "echo 'a b'\n"),
    )
    files = manifest.files()
    assert read_words(files[WORKDIR]) == ["/work here"]
    assert read_words(files[ENTRYPOINT]) == ["tini", "--"]
    assert read_words(files[CMD]) == ["bash", "-c", "echo 'a b'\n"]
    env = {"PATH": "/host/bin", "HOME": "/home/ada"}
    for each in (ENV, CHANGES):
        apply(read_words(files[each]), env)
    assert env == {"PATH": "/module/bin:/image/bin", "HOME": "/home/ada", "B": "2"}
    changes = read_words(files[CHANGES])
    assert changes == ["-A", "<PATH=/module/bin", "=B=2"]
    assert read_words(files[ENV]) == ["=PATH=/image/bin", "=A=1"]


def test_an_image_that_says_nothing() -> None:
    assert {name: read_words(content) for name, content in Manifest().files().items()} == {
        ENV: [],
        CHANGES: [],
        WORKDIR: [],
        ENTRYPOINT: [],
        CMD: [],
    }


NAMES = st.sampled_from(["A", "B", "PATH"])
VALUES = st.dictionaries(
    NAMES, st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
)
ANY = st.builds(
    Changes, set=VALUES, prepend=VALUES, append=VALUES, unset=st.lists(NAMES).map(tuple)
)


@given(VALUES, st.lists(ANY, max_size=3))
def test_it_is_applied_as_changes_are(host: dict[str, str], changes: list[Changes]) -> None:
    expected, found = dict(host), dict(host)
    for change in changes:
        change.apply(expected)
    files = Manifest(changes=tuple(changes)).files()
    apply(read_words(files[CHANGES]), found)
    assert found == expected
