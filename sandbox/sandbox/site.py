"""A shop as the network sees it: its store with everything that answers for it."""

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from sandbox.bulk import Bulk
from sandbox.cost import Bucket
from sandbox.faults import Faults
from sandbox.log import Log
from sandbox.oauth import Tokens
from sandbox.paging import Listing
from sandbox.store import Store
from sandbox.webhooks import Webhooks

if TYPE_CHECKING:
    import httpx

    from sandbox.results import Results
    from sandbox.settings import Settings

LISTINGS = 24  # sorted search results kept, so that the next page need not search again


class Site:
    def __init__(
        self, store: Store, settings: "Settings", results: "Results", client: "httpx.AsyncClient"
    ) -> None:
        self.store: Store = store
        self.settings: Settings = settings
        self.results: Results = results
        self.client: httpx.AsyncClient = client
        self.bucket = Bucket(settings.bucket, settings.restore_rate)
        self.faults: Faults = Faults(store.seed)
        self.log: Log = Log()
        self.tokens = Tokens(store.scopes)
        self.bulk: Bulk = Bulk(self)
        self.webhooks: Webhooks = Webhooks(self)
        self.listings: OrderedDict[tuple[Any, ...], Listing] = OrderedDict()  # Any: the parts of a query

    def remember(self, key: tuple[Any, ...], found: Listing) -> None:
        self.listings[key] = found
        while len(self.listings) > LISTINGS:
            self.listings.popitem(last=False)

    async def close(self) -> None:
        await self.bulk.close()
        await self.webhooks.close()
        self.results.forget(self.store.shop)
