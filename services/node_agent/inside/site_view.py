"""What those are told who put an image together by themselves: what the site has in each."""

from typing import Final

from services.node_agent.errors import InsideRefusedError
from services.node_agent.inside.furnish import site_of
from services.node_agent.inside.module import Module
from services.node_agent.inside.site_files import SiteFiles
from services.node_agent.threads import DaemonThreads
from shared.api import SiteView
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError
from shared.settings.inside import InsideSettings

_SECONDS: Final = 5.0


class SiteInsides:
    """Of this node. An agent of an ordinary user's has nothing else to do with insides."""

    def __init__(self, settings: InsideSettings) -> None:
        self._settings = settings
        self._modules = SiteFiles(settings.modules, Module, ".yaml")
        self._threads = DaemonThreads(1, "site")

    async def view(self) -> SiteView:
        site = site_of(self._settings)
        return SiteView(
            site_fs=site.file_systems,
            tmp_size=site.tmp_size,
            changes=site.changes,
            modules=await self._defaults(),
        )

    async def _defaults(self) -> tuple[str, ...]:
        """None where they cannot be read: that is for jobs to hear, which are to have them."""
        try:
            async with Deadline.after(_SECONDS).bound("reading this site's modules"):
                modules = await self._threads.run(self._modules.read)
        except (InsideRefusedError, DeadlineExceededError):
            return ()
        return tuple(name for name, module in modules.found.items() if module.default)
