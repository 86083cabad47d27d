"""The environment that the helpers in C make is the one that `shared.inside` says."""

import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.run import environment
from cli.words import Words
from shared.inside.environment import Changes
from shared.inside.manifest import CHANGES, ENV, Manifest, read_words
from tests.support.c_programs import compiled

PROGRAM = r"""
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "dray_inside.h"

extern char **environ;

static char *blob(uint32_t *length)
{
    char *text;

    if (fread(length, sizeof *length, 1, stdin) != 1)
        return NULL;
    text = malloc(*length + 1);
    if (fread(text, 1, *length, stdin) != *length)
        abort();
    return text;
}

int main(void)
{
    uint32_t length, of_image, of_user, of_site, given;
    char *text;

    while ((text = blob(&length))) {
        char **env = calloc(length + 1, sizeof *env), **at = env;
        char *image = blob(&of_image), *user = blob(&of_user), *site = blob(&of_site);
        char **users = calloc(of_user + 1, sizeof *users);
        int count = 0;
        struct dray_inside inside = {
            .users = -1, .env = {image, of_image}, .changes = {site, of_site}};
        for (char *entry = text; entry < text + length; entry += strlen(entry) + 1)
            *at++ = entry;
        for (char *entry = user; entry < user + of_user; entry += strlen(entry) + 1)
            users[count++] = entry;
        environ = env;
        if (dray_environment(&inside, users, count)) {
            fprintf(stderr, "%s\n", inside.why);
            return 1;
        }
        given = 0;
        for (at = environ; *at; at++)
            given += strlen(*at) + 1;
        fwrite(&given, sizeof given, 1, stdout);
        for (at = environ; *at; at++)
            fwrite(*at, 1, strlen(*at) + 1, stdout);
        environ = NULL; /* the next one is another program, as far as libc is concerned */
        free(env), free(text), free(image), free(users), free(user), free(site);
    }
    return 0;
}
"""
OF_INTEREST = [
    *("PATH", "LD_PRELOAD", "LD_", "LD", "GLIBC_TUNABLES", "ENV", "ENVY", "BASH_ENV", "PERLLIB"),
    *(
        "PERL5LIB",
        "PERL5LIBS",
        "PYTHONPATH",
        "PYTHONPATHS",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "DRAY_TOKEN",
        "A",
        "B",
    ),
]
letters = st.characters(codec="utf-8", exclude_characters="\0=\n")
names = st.sampled_from(OF_INTEREST) | st.text(letters, min_size=1, max_size=6)
values = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
tables = st.dictionaries(names, values, max_size=4)
changes = st.builds(
    Changes, set=tables, prepend=tables, append=tables, unset=st.lists(names, max_size=3).map(tuple)
)
entries = st.tuples(names, values).map("=".join)
manifests = st.builds(
    Manifest,
    env=st.lists(entries, max_size=5).map(tuple),
    changes=st.lists(changes, max_size=2).map(tuple),
)
options = st.lists(entries, max_size=3).map(tuple)
cases = st.lists(st.tuples(tables, manifests, options), min_size=1, max_size=40)
Case = tuple[dict[str, str], bytes, tuple[str, ...], bytes]
"""The host's, the image's operations, the user's options, those of modules and site."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(PROGRAM, tmp_path_factory.mktemp("c") / "environment")


def terminated(words: Iterable[str]) -> bytes:
    return b"".join(word.encode() + b"\0" for word in words)


def ask(program: Path, given: list[Case]) -> list[dict[str, str]]:
    """What C makes of each."""
    packed = b""
    for host, image, users, site in given:
        inherited = [f"{name}={value}" for name, value in host.items()]
        for part in (terminated(inherited), image, terminated(users), site):
            packed += struct.pack("=I", len(part)) + part
    # What libc keeps of a variable it keeps for ever: no leak of ours.
    leaks = {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program], input=packed, capture_output=True, check=False, env=leaks)
    assert done.returncode == 0, done.stderr.decode()
    found, at = [], 0
    while at < len(done.stdout):
        (length,) = struct.unpack_from("=I", done.stdout, at)
        words = read_words(done.stdout[at + 4 : at + 4 + length])
        assert len({word.partition("=")[0] for word in words}) == len(words)
        found.append({name: value for name, _, value in (word.partition("=") for word in words)})
        at += 4 + length
    return found


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases)
def test_c_makes_the_environment_that_python_makes(
    program: Path, given: list[tuple[dict[str, str], Manifest, tuple[str, ...]]]
) -> None:
    expected, cases = [], []
    for host, manifest, users in given:
        files = manifest.files()
        image, changes = (tuple(read_words(files[name])) for name in (ENV, CHANGES))
        words = Words("", "", env=tuple(each[1:] for each in image), changes=changes)
        expected.append(environment(words, host, file="", options=users, whole_host=True))
        cases.append((host, files[ENV], users, files[CHANGES]))
    assert ask(program, cases) == expected


@pytest.mark.parametrize("operations", [b"A=B\0", b"=A\0", b"\0", b"==x\0", b"<\0"])
def test_what_cannot_be_an_operation_is_refused(program: Path, operations: bytes) -> None:
    with pytest.raises(AssertionError, match="cannot be"):
        ask(program, [({}, operations, (), b"")])
