"""`python -m bench.convert`: Dray and its peers convert the same images, in one run.

Images are made of Debian packages and Python wheels, once, and kept in the work directory; a
registry of our own serves them on this machine. Each contender converts into storage of its own:
cold, into nothing; update, after the last layer has changed. Peers that are not installed are
skipped by name. Run it as root, on a quiet machine: only root can drop caches and mount overlays.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.convert.contenders import Contender, Peer, Source
from bench.convert.content import ContentError
from bench.convert.dray import DrayConvert, DrayServices, DrayUp
from bench.convert.images import SAMPLES
from bench.convert.layers import Scale
from bench.convert.measure import RunFailedError, drop_caches
from bench.convert.peers import FLATTEN, PEERS
from bench.convert.prepare import make_flat, make_samples
from bench.convert.registry import Registry, running_registry
from bench.convert.report import render
from bench.convert.rounds import Results, run_rounds, this_machine

CONTENDERS: Final[tuple[Contender, ...]] = (DrayUp(), DrayConvert(), DrayServices(), *PEERS)
BY_NAME: Final = {contender.name: contender for contender in CONTENDERS}
EXAMPLES: Final = """\
examples:
  python -m bench.convert                          everything: sci and many, three rounds
  python -m bench.convert --images tiny --rounds 1 does it work here? needs no network
  python -m bench.convert --images sci --scale 0.05 --only dray,podman-layers
  python -m bench.convert --copy-from HOST:PORT --images sci
                                                   the images sci:v1 and sci:v2 of a registry
"""


def main() -> int:
    arguments = _arguments()
    # Stopped in order as by Ctrl-C: nothing of ours stays mounted or running.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    chosen = [BY_NAME[name] for name in arguments.only]
    work: Path = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if arguments.install:
        _install(chosen)
    try:
        results = _measure(arguments, chosen, work)
    except (ContentError, RunFailedError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    print()
    print(render(results))
    if arguments.json:
        arguments.json.write_text(results.model_dump_json(indent=2) + "\n")
    return 1 if results.failed else 0


def _measure(arguments: argparse.Namespace, chosen: Sequence[Contender], work: Path) -> Results:
    reasons = {contender.name: contender.missing() for contender in chosen}
    skipped = {name: why for name, why in reasons.items() if why}
    able = [contender for contender in chosen if contender.name not in skipped]
    for name, why in skipped.items():
        _say(f"skipped: {name} ({why})")
    with ExitStack() as stack:
        tls = any(contender.name == "charliecloud" for contender in able)
        registry = stack.enter_context(running_registry(work / "registry", tls=tls))
        lines = _images(arguments, registry, work)
        sources: dict[str, tuple[Source, Sequence[str]]] = {
            name: (Source(registry, name), [t for t in ("v1", "v2") if registry.has(name, t)])
            for name in arguments.images
        }
        if any(_needs_flat(contender) for contender in able):
            for source, tags in sources.values():
                make_flat(source, tags, work)
        for line in lines:
            _say(line)
        dropped = arguments.drop_caches and drop_caches()
        machine = this_machine(work, caches_dropped=dropped)
        runs, limits, failed = run_rounds(
            able,
            sources,
            rounds=arguments.rounds,
            directory=work / "runs",
            cold_caches=dropped,
            say=_say,
        )
    return Results(
        machine=machine,
        images=lines,
        contenders={contender.name: contender.about for contender in able},
        skipped=skipped,
        failed=failed,
        runs=runs,
        limits=limits,
    )


def _images(arguments: argparse.Namespace, registry: Registry, work: Path) -> list[str]:
    if arguments.copy_from is None:
        _say("Preparing the images (the first time takes some minutes) ...")
        return make_samples(arguments.images, Scale(arguments.scale), registry, work)
    other = Registry(arguments.copy_from)
    for name in arguments.images:
        for tag in ("v1", "v2"):
            if tag == "v1" or other.has(name, tag):
                registry.copy_from(other, name, tag, work / "spool")
    return [f"{name}: copied from another registry" for name in arguments.images]


def _needs_flat(contender: Contender) -> bool:
    return isinstance(contender, Peer) and FLATTEN in contender.programs


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.convert",
        description=__doc__,
        epilog=EXAMPLES + "\ncontenders:\n" + _listed(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--images",
        type=lambda text: _names(text, SAMPLES),
        default=["sci", "many"],
        help=f"which of {', '.join(SAMPLES)} (default: sci,many)",
    )
    parser.add_argument(
        "--only",
        type=lambda text: _names(text, BY_NAME),
        default=list(BY_NAME),
        help="which contenders, as named below (default: all that can run here)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often (default: 3)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="keep this share of each image's files (0 to 1)"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(".bench"),
        help="where everything lies; images stay there (default: .bench, some 12 GB at most)",
    )
    parser.add_argument("--json", type=Path, help="write every single measurement to this file")
    parser.add_argument(
        "--copy-from", metavar="HOST:PORT", help="take the images from this registry (plain HTTP)"
    )
    parser.add_argument(
        "--install", action="store_true", help="install missing Debian packages first (as root)"
    )
    parser.add_argument(
        "--drop-caches",
        action="store_true",
        help="empty the machine's page cache before each conversion (as root); else it is warm",
    )
    arguments = parser.parse_args()
    if not 0 < arguments.scale <= 1:
        parser.error("--scale is a share between 0 and 1")
    if arguments.rounds < 1:
        parser.error("--rounds is at least 1")
    return arguments


def _names(text: str, known: object) -> list[str]:
    assert isinstance(known, dict)
    names = [name.strip() for name in text.split(",") if name.strip()]
    strange = [name for name in names if name not in known]
    if strange or not names:
        listed = ", ".join(known)
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(strange)}; there are {listed}")
    return names


def _listed() -> str:
    return "\n".join(f"  {name:15} {contender.about}" for name, contender in BY_NAME.items())


def _install(chosen: Sequence[Contender]) -> None:
    packages = sorted(
        {
            package
            for contender in chosen
            if isinstance(contender, Peer) and contender.missing()
            for _, package in contender.programs
        }
    )
    if packages:
        script = '. deploy/bootstrap/common.sh; apt_install "$@"'
        subprocess.run(["sh", "-c", script, "bench", *packages], check=False)  # noqa: S607


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
