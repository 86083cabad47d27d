"""What `dray hook stage` understands."""

from typing import Annotated

import typer

from cli.defaults import LOCAL_GATEWAY
from cli.options import System, Url


def stage(
    images: Annotated[
        list[str], typer.Argument(metavar="REF...", help="What the job runs in, or id:ID.")
    ],
    uid: Annotated[
        int | None,
        typer.Option("--uid", min=0, metavar="UID", help="Whose job it is, by number; for admins."),
    ] = None,
    wait: Annotated[
        float,
        typer.Option("--wait", min=1, max=2_000_000, metavar="SECONDS", help="For how long."),
    ] = 86_400.0,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
) -> None:
    """Have images pulled for a job that is still pending, and wait for them.

    They are asked for as the job's user would: with the logins that the user keeps here, and on the
    user's quota. Prints DRAY_IMAGE_ID and DRAY_IMAGES. While no gateway answers, it waits for one.
    For burst_buffer.lua, and what other schedulers have in its place. Safe to repeat.

    \b
    dray hook stage --uid 1000 --wait 3600 group/solver:2.1
    """
    from cli.gateway import Gateway, PullWish  # noqa: PLC0415
    from cli.hook_guard import in_one_line  # noqa: PLC0415
    from cli.hook_stage import stage as run  # noqa: PLC0415

    wishes = [PullWish(image, system, uid=uid) for image in images]
    with in_one_line():
        lines = run(Gateway(url), wishes, wait)
    for line in lines:
        print(line)
