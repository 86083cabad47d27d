"""`make demo`: an image comes from a registry, becomes one squashfs, and runs on the "node"."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

from deploy.demo.sample import sample
from deploy.demo.site import DemoError, Site, free_port, mounts_below
from shared.errors import InvalidReferenceError
from shared.reference import parse_reference

GATEWAY_PORT: Final = 7600
INSIDE: Final = (
    "grep PRETTY_NAME /etc/os-release; uname -srm; id; "
    "echo; echo 'the root, as the kernel sees it:'; grep ' / ' /proc/mounts"
)
NO_SHELL: Final = (126, 127)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--ref", help="an image to pull, instead of a sample made here")
    parser.add_argument("--keep", action="store_true", help="stay up until Ctrl-C")
    parser.add_argument("--dir", type=Path, default=Path(".demo"), help="where it keeps its data")
    arguments = parser.parse_args()
    directory = arguments.dir.resolve()
    began = time.monotonic()
    # asyncio stops in order on Ctrl-C: so it shall in the background, too, and on these.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        if arguments.ref is not None:
            parse_reference(arguments.ref)
        _prepare(directory)
        asyncio.run(_demo(directory, arguments.ref, keep=arguments.keep))
    except KeyboardInterrupt:
        print("\nStopped.")
    except InvalidReferenceError as exc:
        print(f"REF: {exc.message}", file=sys.stderr)
        return 2
    except DemoError as exc:
        print(f"\nThe demonstration cannot go on: {exc}", file=sys.stderr)
        return 1
    return _farewell(directory, time.monotonic() - began)


def _prepare(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "data").mkdir(exist_ok=True)
    except OSError as exc:
        raise DemoError(f"cannot write to {directory}: {exc.strerror}") from exc
    if not os.access(directory / "data", os.W_OK):
        raise DemoError(
            f"{directory} belongs to another user, who ran this before: remove it as that user "
            "(make clean)"
        )


async def _demo(directory: Path, reference: str | None, *, keep: bool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        if reference is None:
            reference = await stack.enter_async_context(sample(directory / "registry"))
            command: tuple[str, ...] = ("hello",)
        else:
            command = ()
        site = Site(directory / "data", free_port(GATEWAY_PORT))
        print("Starting gateway, converter, distributor and node agent in one process (dray up).")
        await stack.enter_async_context(site.running())
        print(f"Dashboard: {site.url}/")
        print(f"This node mounts images by {site.how_it_mounts()}.")
        await _tour(site, reference, command)
        if keep:
            await _stay(site, reference)


async def _tour(site: Site, reference: str, command: tuple[str, ...]) -> None:
    if await site.knows(reference):
        print(
            "\nThis image is READY from an earlier run: only its digest is compared with the "
            "registry's.\nLayers that the store holds are never fetched or compressed again."
        )
    if await site.dray("pull", reference) != 0:
        hint = "" if command else "; without REF=… the demonstration needs no registry but its own"
        raise DemoError(f"the pull failed, for the reason above{hint}")
    if command and await site.dray("run", reference, *command) != 0:
        raise DemoError("the image could not be run, for the reason above")
    code = await site.dray("run", reference, "sh", "-c", INSIDE, shown=f"run {reference} sh -c '…'")
    if code in NO_SHELL:
        print("This image has no shell to show itself with.")
    elif code != 0:
        raise DemoError("the image could not be run, for the reason above")
    # Once more: what has not changed is READY at once.
    await site.dray("pull", reference)
    await site.dray("images")
    await site.dray("nodes")


async def _stay(site: Site, reference: str) -> None:
    # By its socket, the gateway knows who asks; where the path is too long for one, it has none.
    local = f"unix://{site.socket}" if site.socket.exists() else site.url
    if local != site.url:
        await site.dray("dashboard", "--at", site.url, "--url", local)
    print(
        f"\nStill up: {site.url}/ in a browser, signed in by the link above; in another terminal:\n"
        f"  export DRAY_URL={local} DRAY_SOCKET={site.data}/agent/agent.sock\n"
        f"  .venv/bin/dray top\n"
        f"  .venv/bin/dray pull alpine:3\n"
        f"  .venv/bin/dray run {reference}\n"
        "Ctrl-C ends it.",
        flush=True,
    )
    await asyncio.Event().wait()


def _farewell(directory: Path, seconds: float) -> int:
    left = mounts_below(directory)
    if left:
        print(f"\nStill mounted, which is a fault of ours: {', '.join(left)}", file=sys.stderr)
        return 1
    print(
        f"\nDone in {seconds:.1f} s. Everything is stopped and unmounted; {directory} keeps the "
        "image and its layers for the next run (`make clean` removes it).\n"
        "Your own: .venv/bin/dray up, and in another terminal .venv/bin/dray pull alpine:3"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
