"""How `dray --help` lists its commands: by what they are about."""

from typing import Any, Final

from typer.core import TyperGroup

SECTIONS: Final = (
    (
        "Images",
        ("pull", "import", "export", "images", "lookup", "inspect", "rm", "pin", "unpin", "share"),
    ),
    ("Registries", ("login", "logout", "logins")),
    ("Running", ("run", "up")),
    ("The site", ("top", "dashboard", "queue", "jobs", "nodes", "usage", "quota")),
    ("Oneself", ("whoami", "token", "doctor", "completion")),
    ("Without a gateway", ("convert", "store")),
    ("Operators", ("expire", "hook")),
)


class Sections(TyperGroup):
    """A group whose commands are listed under headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        room = formatter.width - width - 6
        for heading, names in SECTIONS:
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(room)) for name in names
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)
