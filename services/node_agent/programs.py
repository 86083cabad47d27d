"""What the images of this node run: so that `dray run` in a job needs no gateway."""

from typing import Final

from services.node_agent.holds import Holds
from services.node_agent.job import SITE
from services.node_agent.readers import User
from shared.api import ProgramView
from shared.deadline import Deadline
from shared.models import ImageId

_SECONDS: Final = 10.0


class Programs:
    """By the images' sidecars."""

    def __init__(self, holds: Holds) -> None:
        self._holds = holds

    async def of(self, image_id: ImageId, user: User | None) -> ProgramView:
        """For whoever may use the image; SITE may use all."""
        deadline = Deadline.after(_SECONDS)
        if user is not SITE:
            await self._holds.require_readable(image_id, user, deadline)
        config = await self._holds.config(image_id, deadline)
        return ProgramView(
            image_id=image_id,
            env=config.env,
            entrypoint=config.entrypoint,
            cmd=config.cmd,
            workdir=config.workdir,
        )
