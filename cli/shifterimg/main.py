"""The modes of `shifterimg`: what each asks of a gateway, and what it prints.

What scripts read is as in the original: the columns of `images`, the id of `lookup`, the lines of
a pull, and with -v the gateway's own answer behind `Message: `. Reasons go to stderr. Other than
there, whatever did not work ends with exit code 1.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cli.errors import EXIT_FAILED, CliError, UsageError
from cli.output import OutputLostError, ReaderGoneError, complain, guarded
from cli.proof import MUNGE_SOCKET, NO_MUNGE
from cli.shifterimg.conf import Conf, read_conf
from cli.shifterimg.gateways import Answer, Gateways
from cli.shifterimg.login import login
from cli.shifterimg.logins import Logins, login_file, payload
from cli.shifterimg.options import USAGE, Options, parse_image, parse_options
from cli.show import plain
from shared.errors import DrayError
from shared.munge import Munge

POLLED: Final = frozenset(
    {"MISSING", "INIT", "PENDING", "PULLING", "EXAMINATION", "CONVERSION", "TRANSFER"}
)
POLL_SECONDS: Final = 0.5


class NotDoneError(CliError):
    """The gateway answered, and the answer is no."""

    code = "not_done"


def main() -> None:
    """The console script."""
    sys.exit(guarded(lambda: sys.exit(run(sys.argv[1:]))))


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit code."""
    try:
        options = parse_options(arguments)
        if options is None:
            print(USAGE, end="")
            return 0
        _act(options, read_conf())
    except (ReaderGoneError, OutputLostError):
        raise
    except DrayError as exc:
        sys.stdout.flush()
        complain(f"shifterimg: {plain(exc.message)}")
        if isinstance(exc, UsageError):
            complain("Try 'shifterimg --help'.")
        return EXIT_FAILED
    return 0


def _act(options: Options, conf: Conf) -> None:
    munge = _munge()
    logins = Logins(login_file(), munge)

    def credential() -> str | None:
        if munge is None:
            return None  # the public: its images need no name
        return munge.encode(payload(logins.of(conf.system)))

    gateways = Gateways(conf.gateways, conf.timeout, credential)
    if options.mode == "login":
        login(conf, gateways, logins, munge, options.what)
    elif options.mode in {"pull", "pullnb"}:
        _pull(options, conf, gateways)
    else:
        _ask(options, conf, gateways)


def _munge() -> Munge | None:
    """MUNGE's daemon, if this machine has one that we shall use."""
    named = os.environ.get(MUNGE_SOCKET)
    if named == NO_MUNGE:
        return None
    munge = Munge(Path(named) if named else None)
    return munge if named or munge.there() else None


def _ask(options: Options, conf: Conf, gateways: Gateways) -> None:
    image = parse_image(options.what, conf.default_type) if options.what else ()
    if options.mode == "images":
        for line in _table(_taken(options, gateways.ask("GET", "list", conf.system))):
            print(line)
    elif options.mode == "lookup":
        answer = gateways.ask("GET", "lookup", conf.system, *image)
        print(plain(_taken(options, answer).get("id", "MISSING")))
    elif options.mode == "expire":
        answer = gateways.ask("GET", "expire", conf.system, *image)
        if not _taken(options, answer).get("status"):
            raise NotDoneError(
                f"{options.what} is not expired: only who pulled it and administrators may do that"
            )
    else:
        answer = gateways.ask("GET", "autoexpire", conf.system)
        if _taken(options, answer).get("status") is False:
            raise NotDoneError("only administrators may expire what is due")


def _pull(options: Options, conf: Conf, gateways: Gateways) -> None:
    itype, tag = parse_image(options.what or "", conf.default_type)
    readers = {"allowed_uids": options.uids, "allowed_gids": options.gids}
    body = {key: ",".join(map(str, ids)) for key, ids in readers.items() if ids}
    while True:
        record = _taken(options, gateways.ask("POST", "pull", conf.system, itype, tag, body=body))
        status = plain(record.get("status", "MISSING"))
        now = time.strftime("%Y-%m-%dT%H:%M:%S")
        line = f"{now} Pulling Image: {itype}:{tag}, status: {status}"
        print(line if options.verbose else f"\r\x1b[2K{line}", end="", flush=True)
        ended = status not in POLLED
        if options.verbose or ended:
            print(flush=True)
        if ended and status != "READY":
            why = record.get("status_message") or "the gateway does not say why"
            raise NotDoneError(f"{tag}: {why}")
        if ended or options.mode == "pullnb":
            return
        time.sleep(POLL_SECONDS)


def _taken(options: Options, answer: Answer) -> dict[str, Any]:
    """The answer's body, if it is a success."""
    refused = answer.status != 200
    if options.verbose:
        if refused:
            print(f"Got response: {answer.status}")
        print(f"Message: {plain(answer.text)}")
    if refused:
        raise NotDoneError(answer.error)
    return answer.body


def _table(content: Mapping[str, Any]) -> Iterator[str]:
    """A line for each tag, in the order of the tags."""
    lines: list[tuple[bytes, str]] = []
    for image in content.get("list") or ():
        cells = [plain(image.get(key, "MISSING")) for key in ("system", "itype", "status", "id")]
        system, itype, status, ident = cells
        pulled = _local_time(image.get("last_pull"))
        tags = image.get("tag")
        for tag in map(plain, tags if isinstance(tags, list) else [tags]):
            line = f"{system:<10} {itype:<10} {status:<8} {ident[:10]}   {pulled} {tag:<30}"
            lines.append((tag.encode(errors="replace"), line))
    return (line for _, line in sorted(lines))


def _local_time(stamp: object) -> str:
    seconds = stamp if isinstance(stamp, int | float) else 0
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
