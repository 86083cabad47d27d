"""How commands find this machine's gateway, and how they say who runs them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import account
from cli.account import seconds_of
from cli.addresses import addresses
from cli.defaults import LOCAL_GATEWAY
from cli.errors import RefusedError, UsageError
from cli.gateway import Gateway
from shared.api import QueueView
from shared.api.account import ScopeName as ApiScope
from shared.api.account import TokenRequest, TokenView, WhoAmI
from shared.models import utcnow
from tests.support.scripted_gateway import (
    Reply,
    Script,
    problem,
    says,
    scripted_agent,
    scripted_gateway,
)

QUEUE = "GET /api/v1/queue"
NOTHING = says(QueueView(items=()))
TOKEN = "dray1.e30.c2ln"


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One without MUNGE, tokens and gateways, but for what a test adds."""
    for name in ("DRAY_TOKEN", "DRAY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DRAY_MUNGE_SOCKET", "none")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("cli.defaults.SITE_GATEWAY_SOCKETS", (tmp_path / "site.sock",))


@pytest.fixture
def served() -> Iterator[tuple[str, Script]]:
    with scripted_gateway() as found:
        found[1].on(QUEUE, NOTHING)
        yield found


def test_without_a_proof_nobody_asks(served: tuple[str, Script]) -> None:
    url, script = served
    Gateway(url).items("/queue")
    assert script.authorizations == [None]


def test_a_token_comes_from_the_environment_or_a_file(
    served: tuple[str, Script], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, script = served
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}-file\n")
    monkeypatch.setenv("DRAY_TOKEN_FILE", str(file))
    Gateway(url).items("/queue")
    monkeypatch.setenv("DRAY_TOKEN", f" {TOKEN}\n")
    Gateway(url).items("/queue")
    assert script.authorizations == [f"Bearer {TOKEN}-file", f"Bearer {TOKEN}"]


@pytest.mark.parametrize("host", ["gateway.example.org", "10.0.0.1", "localhost.evil.example"])
def test_a_token_never_travels_in_clear_to_another_machine(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAY_TOKEN", TOKEN)
    with pytest.raises(UsageError, match=r"readable for everybody.*https://"):
        Gateway(f"http://{host}:7600").items("/queue")
    for safe in (f"https://{host}", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"):
        [address] = addresses(safe)
        assert address.prove() == {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ümlaut", "x" * 5000])
def test_what_is_no_token_is_refused_before_it_is_sent(
    token: str, served: tuple[str, Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAY_TOKEN", token)
    with pytest.raises(UsageError, match="dray token") as caught:
        Gateway(served[0]).items("/queue")
    assert token not in caught.value.message
    assert served[1].asked == []


def test_a_token_file_that_helps_nobody_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DRAY_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="cannot read"):
        Gateway("http://127.0.0.1:1").items("/queue")
    (tmp_path / "none").touch()
    with pytest.raises(UsageError, match="is empty"):
        Gateway("http://127.0.0.1:1").items("/queue")


def test_this_machine_s_gateway_is_asked_by_its_socket(tmp_path: Path) -> None:
    own = tmp_path / "dray"
    own.mkdir()
    assert [each.name for each in addresses(LOCAL_GATEWAY)] == ["http://127.0.0.1:7600"]
    with scripted_agent(str(own / "gateway.sock")) as script:
        script.on(QUEUE, NOTHING)
        Gateway(LOCAL_GATEWAY).items("/queue")
        assert script.authorizations == [None]
        with scripted_agent(str(tmp_path / "site.sock")) as site:
            site.on(QUEUE, NOTHING)
            Gateway(LOCAL_GATEWAY).items("/queue")
            assert len(site.asked) == 1
        assert len(script.asked) == 1
    [address] = addresses(LOCAL_GATEWAY)
    assert address.name == "http://127.0.0.1:7600"  # the socket is left, and nobody serves it


def test_a_socket_can_be_named(tmp_path: Path) -> None:
    with scripted_agent(str(tmp_path / "a b.sock")) as script:
        script.on(QUEUE, NOTHING)
        Gateway(f"unix://{tmp_path}/a%20b.sock").items("/queue")
        assert len(script.asked) == 1
    for senseless in ("unix://", "unix:relative", "unix://host/path", "http://user:pw@h"):
        with pytest.raises(UsageError):
            Gateway(senseless)


def test_a_gateway_that_wants_us_to_wait_is_asked_again(served: tuple[str, Script]) -> None:
    url, script = served
    busy = problem(429, "too_many_requests", "wait")
    script.on(QUEUE, Reply(busy.body, 429, busy.content_type, retry_after=0), NOTHING)
    assert Gateway(url).items("/queue") == []
    assert len(script.asked) == 2
    script.on(QUEUE, Reply(busy.body, 429, busy.content_type, retry_after=3600))
    with pytest.raises(RefusedError, match="wait"):
        Gateway(url).items("/queue")


def test_a_token_is_asked_for_and_printed_alone(
    served: tuple[str, Script], capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    scopes: tuple[ApiScope, ...] = ("read", "pull")
    view = TokenView(token=TOKEN, id="1", name="alice", scopes=scopes, expires_at=utcnow())
    script.on("POST /api/v1/tokens", says(view, 201))
    assert account.token(Gateway(url), ["pull"], "grafana", "2h", json=False) == 0
    asked = TokenRequest.model_validate(script.asked[0][1])
    assert (asked.scopes, asked.service, asked.seconds) == (("pull",), "grafana", 7200)
    shown = capsys.readouterr()
    assert shown.out == f"{TOKEN}\n"
    assert "alice: read, pull; until" in shown.err
    assert account.token(Gateway(url), ["pull"], None, "60", json=True) == 0
    assert TokenView.model_validate_json(capsys.readouterr().out) == view


def test_who_one_is_is_shown(
    served: tuple[str, Script], capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    scopes: tuple[ApiScope, ...] = ("read", "pull")
    view = WhoAmI(name="alice", uid=1000, gids=(50, 100), scopes=scopes, via="munge")
    script.on("GET /api/v1/whoami", says(view))
    assert account.whoami(Gateway(url), json=False) == 0
    assert [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:4]] == [
        ["name", "alice"], ["uid", "1000"], ["groups", "50 100"], ["may", "read, pull"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("12h", 43200), ("1d", 86400), ("5", 5)]
)
def test_durations_are_as_people_write_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h", "-1h", "1w", "1.5h", "h", "1h30m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--expires"):
        seconds_of(text)
