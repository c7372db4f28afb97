"""All shops of this process, and what they share."""

import httpx

from sandbox.generate import generate
from sandbox.results import Results
from sandbox.settings import Settings
from sandbox.site import Site
from sandbox.store import ALL_SCOPES
from sandbox.webhooks import CONCURRENCY, CONNECT_TIMEOUT, TOTAL_TIMEOUT


class World:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sites: dict[str, Site] = {}
        self.results = Results()
        self.client = httpx.AsyncClient(
            timeout=httpx.Timeout(TOTAL_TIMEOUT, connect=CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=4 * CONCURRENCY, max_keepalive_connections=CONCURRENCY),
            follow_redirects=False,
            trust_env=False,
        )
        if settings.shop:
            self.open(
                settings.shop,
                settings.orders,
                settings.seed,
                settings.currency,
                token=settings.token,
                anchor=settings.anchor,
            )

    def open(
        self,
        shop: str,
        orders: int,
        seed: int = 7,
        currency: str = "USD",
        *,
        customers: int | None = None,
        products: int | None = None,
        anchor: int | None = None,
        token: str | None = None,
        scopes: tuple[str, ...] = ALL_SCOPES,
        settings: Settings | None = None,
    ) -> Site:
        store = generate(
            shop, orders, seed, currency, customers=customers, products=products, anchor=anchor, scopes=scopes
        )
        site = Site(store, settings or self.settings, self.results, self.client)
        if token:
            site.tokens.allow(token, scopes)
        self.sites[shop] = site
        return site

    async def shut(self, shop: str) -> bool:
        site = self.sites.pop(shop, None)
        if site:
            await site.close()
        return site is not None

    async def close(self) -> None:
        for shop in list(self.sites):
            await self.shut(shop)
        await self.client.aclose()
        self.results.close()
