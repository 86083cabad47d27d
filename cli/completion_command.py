"""What `dray completion` understands, and what its scripts ask in return."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.defaults import LOCAL_GATEWAY
from cli.options import Url

commands = typer.Typer(rich_markup_mode=None)


class Shell(StrEnum):
    """Those that we can complete in."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


class Kind(StrEnum):
    """What only the gateway knows."""

    REFERENCES = "references"
    SYSTEMS = "systems"


@commands.command(short_help="Print a script that completes dray's words in your shell.")
def completion(
    shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", show_default=False)],
) -> None:
    """Print a script that lets your shell complete dray's commands, options and images.

    Images are those that are READY at the gateway that DRAY_URL names; where it does not answer
    within half a second, none are offered.

    \b
    source <(dray completion bash)          in ~/.bashrc
    source <(dray completion zsh)           in ~/.zshrc, after compinit
    dray completion fish | source           in ~/.config/fish/config.fish
    """
    from cli import completion_scripts  # noqa: PLC0415
    from cli.completion import places  # noqa: PLC0415
    from cli.main import app  # noqa: PLC0415

    make = {
        Shell.BASH: completion_scripts.bash,
        Shell.ZSH: completion_scripts.zsh,
        Shell.FISH: completion_scripts.fish,
    }
    print(make[shell](places(app)), end="")


@commands.command(hidden=True)
def suggest(kind: Kind, prefix: str = typer.Argument(""), url: Url = LOCAL_GATEWAY) -> None:
    """Print what begins like that; asked by the completion scripts."""
    from cli.suggestions import suggest as run  # noqa: PLC0415

    run(url, kind.value, prefix)
