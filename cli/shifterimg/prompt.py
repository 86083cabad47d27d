"""Asks for a name and a password: at the terminal, or from the lines of a pipe."""

import sys
from getpass import getpass
from typing import Final

from cli.errors import UsageError

TERMINAL: Final = "/dev/tty"


def ask_login(location: str) -> tuple[str, str]:
    """The prompts are the original's; what is typed as password is not shown."""
    try:
        with open(TERMINAL, "rb", buffering=0) as terminal:  # noqa: PTH123 - a device, not a file
            print(f"{location} username: ", end="", file=sys.stderr, flush=True)
            username = _line(terminal.readline())
        password = getpass(f"{location} password: ", stream=sys.stderr)
    except OSError:
        # No terminal: a script, which gives both as lines.
        username, password = (_line(sys.stdin.buffer.readline()) for _ in range(2))
    if not username or ":" in username:
        raise UsageError("the user's name must not be empty or have a colon in it")
    if not password:
        raise UsageError("the password must not be empty")
    return username, password


def _line(content: bytes) -> str:
    return content.decode(errors="replace").rstrip("\r\n")
