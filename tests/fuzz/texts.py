"""Text of users, registries and schedulers: references, challenges, hostlists, volumes."""

import re
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from yarl import URL

from services.converter.registry.auth import Authorizer
from services.converter.registry.challenge import MAX_HEADER, Challenge, parse_challenges
from services.converter.registry.endpoint import registry_endpoint
from services.converter.registry.errors import RegistryProtocolError
from services.converter.registry.neighbours import refuse_neighbours
from services.converter.registry.transport import (
    MAX_WAIT,
    Request,
    Transport,
    _redirected,
    retry_after,
)
from shared.deadline import Deadline
from shared.errors import InvalidReferenceError
from shared.hostlist import HostlistError, expand, fold
from shared.inside.environment import VariableRefusedError, parse_env_file
from shared.inside.errors import VolumeRefusedError
from shared.inside.manifest import apply, read_words
from shared.inside.volumes import parse_volumes
from shared.inside.walk import parts
from shared.reference import MAX_REFERENCE, MAX_REPOSITORY, parse_reference
from tests.fuzz.target import Target

SHA: Final = "sha256:" + "5" * 64
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9][a-z0-9.-]*)(:[1-9][0-9]{0,4})?")
_VERSION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|sha256:[0-9a-f]{64}")
_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
_RESERVED: Final = ("/home", "/opt/site")
_ENV: Final = {"HOME": "/home/ada", "EMPTY": "", "RUNS": "/scratch/runs;/x:/etc", "UP": "../.."}


def _reference(data: bytes) -> None:
    try:
        found = parse_reference(data.decode("utf-8", "surrogateescape"))
    except InvalidReferenceError:
        return
    assert parse_reference(str(found)) == found
    assert len(str(found)) <= MAX_REFERENCE
    assert len(found.repository) <= MAX_REPOSITORY
    # Both become parts of a URL.
    assert _HOST.fullmatch(found.registry)
    assert not {"", ".", ".."} & set(found.repository.split("/"))
    assert _VERSION.fullmatch(found.target)


def _challenge(data: bytes) -> None:
    headers = data.decode("latin-1").split("\n\n")
    found = parse_challenges(headers)
    assert sum(1 + len(each.params) for each in found) <= len(headers) * MAX_HEADER
    for each in found:
        assert each.scheme
        assert each.scheme == each.scheme.lower()
        assert all(name == name.lower() for name in each.params)
    assert parse_challenges(header[:MAX_HEADER] for header in headers) == found


_HERE: Final = URL("https://h.example.org/v2/a/blobs/x")


def _answer(data: bytes) -> None:
    """Two headers of an answer: when to come again, and where else to go."""
    wait, _, location = data.decode("latin-1").partition("\n")
    seconds = retry_after(wait)
    assert seconds is None or 0 <= seconds <= MAX_WAIT
    request = Request("GET", _HERE, authorization="Basic secret")
    try:
        there = _redirected(request, location)
        _go(refuse_neighbours(_HERE, there.url, Deadline.after(1), by_proxy=True))
    except RegistryProtocolError:
        return
    assert there.url.scheme == "https"
    assert there.url.user is None
    assert there.authorization is None or there.url.origin() == _HERE.origin()
    # As it will be looked up.
    assert (there.url.host or "").encode("idna")


class _ByProxy(Transport):
    """Looks up no names."""

    def __init__(self) -> None:
        """Nothing is asked."""

    async def refuse_neighbours(self, origin: URL, target: URL, deadline: Deadline) -> None:
        await refuse_neighbours(origin, target, deadline, by_proxy=True)


def _realm(data: bytes) -> None:
    """Where a registry says that tokens are."""
    challenge = Challenge("bearer", {"realm": data.decode("latin-1")})
    authorizer = Authorizer(registry_endpoint("h.example.org"), _ByProxy())
    with suppress(RegistryProtocolError):
        _go(authorizer._service_of(challenge, Deadline.after(1)))


def _go(step: Coroutine[Any, Any, object]) -> None:
    """What waits for nothing; who is near already would ask for the address of the origin."""
    try:
        step.send(None)
    except StopIteration:
        return
    except RuntimeError as exc:
        raise RegistryProtocolError("it would look up where we are") from exc
    finally:
        step.close()


def _hostlist(data: bytes) -> None:
    try:
        names = expand(data.decode("utf-8", "surrogateescape"), 2000)
    except HostlistError:
        return
    assert 0 < len(names) <= 2000
    assert all(_NODE.fullmatch(name) for name in names)
    assert sorted(expand(fold(names))) == sorted(names)


def _volumes(data: bytes) -> None:
    try:
        found = parse_volumes([data.decode("utf-8", "surrogateescape")], _RESERVED, _ENV)
    except VolumeRefusedError:
        return
    for each in found:
        names = parts(each.target)
        assert names
        assert ".." not in names
        assert names[0] not in {"proc", "sys", "dev", "etc", "home"}
        assert names[:2] != ["opt", "site"]
        assert each.source.startswith("/")
    # What was read once is handed on as text, and read again.
    assert parse_volumes([";".join(each.text for each in found)], _RESERVED) == found


def _environment(data: bytes) -> None:
    """What lies beside an inside, then a file of the user's."""
    env: dict[str, str] = {}
    words = read_words(data)
    apply(words, env)
    assert len(env) <= len(words)
    try:
        found = parse_env_file(data.decode("utf-8", "surrogateescape"))
    except VariableRefusedError:
        return
    assert not any("\0" in name or "=" in name or not name for name in found)


def _encoded(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]


def _words(text: str) -> tuple[bytes, ...]:
    return tuple(text.encode().split())


TARGETS: Final = {
    "reference": Target(
        _reference,
        lambda: _encoded(
            "ubuntu",
            "docker:ubuntu:24.04",
            "docker://h.example.org:5000/group/image:1.0",
            f"localhost/a__b/c-d.e@{SHA}",
            f"[2001:db8::1]:443/x:y@{SHA}",
            "docker:5000/dind:dind",
            "INDEX.docker.io/library/x",
        ),
        words=(
            *_words("/ : @ . .. __ [ ] - docker: docker:// docker.io localhost library/ % ::1"),
            *(SHA.encode(), b"5000/", b"\n"),
        ),
        largest=700,
        examples=100,
    ),
    "challenge": Target(
        _challenge,
        lambda: _encoded(
            'Bearer realm="https://auth.example.org/token",service="r",scope="repository:a:pull"',
            'Basic realm="a \\"b\\"", Negotiate abc==, Bearer realm=https://a/b',
            'Basic\n\nDigest qop="auth, auth-int", nonce=x',
        ),
        words=(b'"', b"\\", b"=", b", ", b" ", b"Basic", b"Bearer ", b"realm=", b"==", b"\n\n"),
        examples=80,
    ),
    "answer": Target(
        _answer,
        lambda: _encoded(
            "30\nhttps://cdn.example.org/blob?X-Sig=a%2Fb",
            "Wed, 21 Oct 2026 07:28:00 GMT\n/v2/b/blobs/x",
            "\n//user:secret@[2001:db8::1%25eth0]:8443/..",
        ),
        words=_words(
            "https:// http:// // / .. @ : [::1] 127.0.0.1 %00 %2f xn--a a..b GMT -0000 9999 Jan ? #"
        ),
        largest=600,
        examples=80,
    ),
    "realm": Target(
        _realm,
        lambda: _encoded("https://auth.example.org/token?a=b", "https://[::1]:5000/t", "x"),
        words=_words("https:// http:// // @ : [] [::1] 127.0.0.1 %00 xn--a a..b ? #"),
        largest=300,
        examples=80,
    ),
    "hostlist": Target(
        _hostlist,
        lambda: _encoded(
            "nid[001-128,200],login1", "r[1-2]n[1-4].site[2]", "n[8-11],n1,n01", "a-b_c.d"
        ),
        words=(b"[", b"]", b",", b"-", b"[1-4]", b"[0-", b"n", b"9" * 18, b"0" * 18, b" ", b"\n"),
        largest=600,
        examples=100,
    ),
    "volumes": Target(
        _volumes,
        lambda: _encoded(
            "/scratch/ada:/data",
            "$HOME/run:/data/x:ro;/b:/input",
            "/c:/cache:perNodeCache=size=200G,fstype=xfs,method=loop,bs=1M",
            "${RUNS}/a:/runs",
        ),
        words=_words(
            "/ : ; , = $ { } .. /etc //dev/./ rw perNodeCache=size= ${HOME} $UP $RUNS $EMPTY"
        ),
        largest=400,
        examples=100,
    ),
    "environment": Target(
        _environment,
        lambda: [b"=A=1\0-B\0<PATH=/x\0>PATH=/y\0", b"# c\nA=1\n B = 2\nC=\n"],
        words=(b"=", b"-", b"<", b">", b"\0", b"\n", b"PATH=", b"#", b"\r\n", b"\xe2\x80\xa8"),
        largest=400,
    ),
}
