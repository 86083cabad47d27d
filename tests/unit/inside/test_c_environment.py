"""The environment that the helpers in C make is the one that `shared.inside` says."""

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.inside.environment import DEFAULT_PATH, NEVER, Changes
from shared.inside.manifest import ENV, Manifest, apply, read_words
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
    uint32_t length, given;
    char *text, *operations;

    while ((text = blob(&length))) {
        char **env = calloc(length + 1, sizeof *env), **at = env;
        struct dray_inside inside = {.users = -1};
        for (char *entry = text; entry < text + length; entry += strlen(entry) + 1)
            *at++ = entry;
        operations = blob(&given);
        inside.env = (struct dray_words){operations, given};
        environ = env;
        if (dray_environment(&inside)) {
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
        free(env), free(text), free(operations);
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
cases = st.lists(st.tuples(tables, manifests), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(PROGRAM, tmp_path_factory.mktemp("c") / "environment")


def ask(program: Path, given: list[tuple[dict[str, str], bytes]]) -> list[dict[str, str]]:
    """What C makes of each of these environments and operations."""
    packed = b""
    for host, operations in given:
        entries = b"".join(f"{name}={value}".encode() + b"\0" for name, value in host.items())
        packed += struct.pack("=I", len(entries)) + entries
        packed += struct.pack("=I", len(operations)) + operations
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
def test_operations_do_the_same_in_both(
    program: Path, given: list[tuple[dict[str, str], Manifest]]
) -> None:
    expected = []
    for host, manifest in given:
        env = {name: value for name, value in host.items() if not NEVER.fullmatch(name)}
        env["PATH"] = DEFAULT_PATH
        apply(read_words(manifest.files()[ENV]), env)
        env["PATH"] = env.get("PATH") or DEFAULT_PATH
        expected.append(env)
    assert ask(program, [(host, m.files()[ENV]) for host, m in given]) == expected


@pytest.mark.parametrize("operations", [b"A=B\0", b"=A\0", b"\0", b"==x\0", b"<\0"])
def test_what_cannot_be_an_operation_is_refused(program: Path, operations: bytes) -> None:
    with pytest.raises(AssertionError, match="cannot be"):
        ask(program, [({}, operations)])
