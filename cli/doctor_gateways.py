"""What `dray doctor` asks gateways, each by itself: another one's answer hides nothing."""

import email.utils
import http.client
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final
from urllib.parse import quote

from cli import http as wire
from cli import show
from cli.addresses import Address, addresses
from cli.answers import read_time, reading
from cli.errors import CliError, RefusedError
from cli.findings import Findings, broken, note, ok
from cli.http import Json

SECONDS: Final = 5.0
SKEW_NOTED: Final = 5.0
SKEW_BROKEN: Final = 60.0
WAITING: Final = 60.0
SILENT: Final = 180.0
_MUCH: Final = 1 << 20
START: Final = "Start one with `dray up`, or name yours with --url or DRAY_URL."


def examined(urls: str) -> Findings:
    """Each address, and then the site as the first that answers tells it."""
    answering: Address | None = None
    try:
        for address in addresses(urls):
            found = list(_gateway(address))
            yield from found
            if answering is None and len(found) > 1:
                answering = address
    except CliError as exc:
        yield broken("gateway", exc.message)
        return
    if answering is not None:
        yield from _site(answering)


def _gateway(address: Address) -> Findings:
    try:
        status, headers, live = _asked(address, "/livez")
    except (OSError, http.client.HTTPException) as exc:
        reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        yield broken("gateway", f"{address.name} does not answer: {reason}", START)
        return
    if status != 200 or live.get("status") != "ok":
        yield broken(
            "gateway",
            f"what answers at {address.name} is no gateway of Dray (status {status})",
            "Name yours with --url or DRAY_URL.",
        )
        return
    yield from _ready(address)
    yield from _version(live)
    yield from _clock(headers)
    yield from _who(address)


def _ready(address: Address) -> Findings:
    try:
        status, _, ready = _asked(address, "/readyz")
    except (OSError, http.client.HTTPException) as exc:
        yield broken("gateway", f"{address.name} lives, but does not say how it is ({exc})")
        return
    if status == 200:
        yield ok("gateway", f"{address.name} answers")
        return
    checks = ready.get("checks")
    wrong = {
        name: problem
        for name, problem in (checks.items() if isinstance(checks, Mapping) else ())
        if problem != "ok"
    }
    problems = "; ".join(f"{name}: {problem}" for name, problem in wrong.items())
    yield broken(
        "gateway",
        f"{address.name} answers, but cannot work: {problems or f'status {status}'}",
        "Its operator should look at what it names; `dray doctor --config FILE` helps there.",
    )


def _version(live: Json) -> Findings:
    ours, theirs = version("dray"), live.get("version")
    if theirs == ours:
        yield ok("version", f"command and gateway are of version {ours}")
    else:
        yield note(
            "version",
            f"this command is of version {ours}, the gateway of {theirs or 'an unknown one'}",
            "Install the same on both, if something is not understood.",
        )


def _clock(headers: Mapping[str, str]) -> Findings:
    try:
        theirs = email.utils.parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError):
        return
    skew = abs((datetime.now(UTC) - theirs).total_seconds())
    if skew >= SKEW_BROKEN:
        yield broken(
            "clock",
            f"this machine's clock and the gateway's are {show.duration(skew)} apart: MUNGE and "
            "tokens are refused like that",
            "Let both follow a time server (chrony).",
        )
    elif skew >= SKEW_NOTED:
        yield note(
            "clock", f"this machine's clock and the gateway's are {show.duration(skew)} apart"
        )
    else:
        yield ok("clock", "agrees with the gateway's")


def _who(address: Address) -> Findings:
    try:
        raw = _got(address, "/whoami")
        with reading("who you are"):
            name, via, scopes = str(raw["name"]), str(raw["via"]), list(raw["scopes"])
    except (CliError, OSError, http.client.HTTPException) as exc:
        yield broken("identity", f"the gateway does not say who you are: {_said(exc)}")
        return
    may = ", ".join(map(str, scopes)) or "nothing"
    if via == "nobody":
        yield note(
            "identity",
            f"the gateway does not know who you are (you may: {may})",
            "Use its socket on its own machine, MUNGE, or a token in DRAY_TOKEN_FILE.",
        )
    else:
        yield ok("identity", f"you are {name}, by {via} (you may: {may})")


def _site(address: Address) -> Findings:
    """What is refused here is only not for everybody's eyes."""
    looks = (
        ("systems", _systems),
        ("site", _worries),
        ("queue", _queue),
        ("events", _events),
        ("nodes", _nodes),
    )
    for about, look in looks:
        try:
            yield from look(address)
        except RefusedError:
            continue
        except (CliError, OSError, http.client.HTTPException) as exc:
            yield broken(about, f"the gateway does not tell: {_said(exc)}")


def _systems(address: Address) -> Findings:
    names = [str(name) for name in _got(address, "/systems").get("items", ())]
    yield ok("systems", ", ".join(names) or "none that you may see")


def _worries(address: Address) -> Findings:
    """What the dashboard says first. Dead letters have a line of their own."""
    with reading("the overview"):
        worries = [
            (str(worry["code"]), worry["level"], str(worry["message"]))
            for worry in _got(address, "/overview")["worries"]
            if worry["code"] != "dead_letters"
        ]
    for code, level, message in worries:
        tell = broken if level == "critical" else note
        yield tell("site", message, f"More in docs/runbooks.md, under {code}.")
    if not worries:
        yield ok("site", "nothing keeps users waiting")


def _queue(address: Address) -> Findings:
    with reading("the queue"):
        pulls = _got(address, "/queue")["items"]
        states = [(str(pull["state"]), _seconds_since(str(pull["updated_at"]))) for pull in pulls]
    for state, name in (("INIT", "converter"), ("TRANSFER", "distributor")):
        waiting = [quiet for found, quiet in states if found == state and quiet > WAITING]
        if waiting:
            yield note(
                "queue",
                f"{show.count(len(waiting), 'pull')} in {state} without news for "
                f"{show.duration(max(waiting))}",
                f"Is a {name} running, and the bus reachable for it?",
            )
            return
    under_way = sum(state not in {"READY", "FAILURE"} for state, _ in states)
    yield ok("queue", f"{show.count(under_way, 'pull')} under way, none without news for long")


def _events(address: Address) -> Findings:
    """For operators only."""
    with reading("the dead letters"):
        letters = _got(address, "/admin/dead-letters")
        dead = max(len(letters["items"]), letters.get("total", 0))
    if dead:
        yield note(
            "events",
            f"{show.count(dead, 'event')} failed for good",
            "See them, and replay them when their cause is gone: dray queue dead",
        )
    else:
        yield ok("events", "none failed for good")


def _nodes(address: Address) -> Findings:
    with reading("the nodes"):
        seen = {
            str(node["node"]): _seconds_since(str(node["seen_at"]))
            for node in _pages(address, "/nodes")
        }
    silent = sorted(name for name, seconds in seen.items() if seconds > SILENT)
    if silent:
        named = ", ".join(silent[:5]) + (", …" if len(silent) > 5 else "")
        yield note(
            "nodes",
            f"{len(silent)} of {show.count(len(seen), 'node')} silent for more than "
            f"{show.duration(SILENT)}: {named}",
            "Are their agents running (`python -m services.node_agent`)?",
        )
    elif seen:
        yield ok("nodes", f"{show.count(len(seen), 'agent')} heard lately")
    else:
        yield note("nodes", "no agent has reported yet", "One runs on each compute node.")


def _seconds_since(text: str) -> float:
    return (datetime.now(UTC) - read_time(text)).total_seconds()


def _asked(address: Address, path: str) -> tuple[int, Mapping[str, str], Json]:
    """Status, headers and body, whatever they are."""
    import json  # noqa: PLC0415

    connection = address.connect(SECONDS)
    try:
        connection.request("GET", path, headers={"User-Agent": "dray"})
        with connection.getresponse() as response:
            headers = {name.lower(): value for name, value in response.getheaders()}
            content = response.read(_MUCH)
            try:
                body = json.loads(content)
            except (ValueError, RecursionError):
                body = None
            return response.status, headers, body if isinstance(body, dict) else {}
    finally:
        connection.close()


def _got(address: Address, path: str) -> Json:
    return wire.call(address.connect, "GET", f"/api/v1{path}", None, SECONDS, address.prove()).body


def _pages(address: Address, path: str) -> Iterator[Json]:
    after = None
    while True:
        page = _got(address, path if after is None else f"{path}?after={quote(after, safe='')}")
        yield from page["items"]
        after = page.get("next")
        if after is None:
            return


def _said(exc: Exception) -> str:
    if isinstance(exc, CliError):
        return exc.message
    return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
