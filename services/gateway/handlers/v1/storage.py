"""Where the bytes are, and what sharing saves."""

from aiohttp import web

from services.gateway.auth.identity import Scope, principal_of
from services.gateway.feed import ChangeFeed
from services.gateway.stock.pack_ledger import PackLedger
from services.gateway.stock.storage import StorageBook
from shared.api import API, StorageView
from shared.http.answers import answer
from shared.http.operation import operation


class StorageHandlers:
    """Stores, image directories, and what is in them."""

    def __init__(self, book: StorageBook, ledger: PackLedger, feed: ChangeFeed) -> None:
        self._book = book
        self._ledger = ledger
        self._feed = feed

    def routes(self) -> list[web.RouteDef]:
        return [web.get(f"{API}/storage", self.show_storage)]

    @operation(gives={200: StorageView}, needs="admin")
    async def show_storage(self, request: web.Request) -> web.Response:
        """Pack stores, image directories, and what sharing saves.

        Stores and directories are told of by those who look after them, every few minutes; an
        image of several references, or on several systems, counts once in what is shared.
        """
        principal_of(request).require(Scope.ADMIN)
        await self._feed.fresh()
        view = StorageView(
            stores=await self._book.stores(),
            systems=await self._book.directories(),
            sharing=self._ledger.totals,
        )
        return answer(view)
