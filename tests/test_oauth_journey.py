"""A merchant's whole way in a real browser: from "connect" over Shopify's page to a live dashboard."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

import pytest
from chromium import new_chromium
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from stores import make_store

LIVE_WITHIN = 60  # seconds; the store is small, two cores may be busy
PAGE_WITHIN = 20  # seconds for a page to show what it should
ALL = ("ingress", "bulk-runner", "promoter", "status")


@pytest.fixture
def browser(tmp_path):
    """A Chromium that nobody has used before."""
    with new_chromium(tmp_path / "profile") as window:
        yield window


class Page:
    """The browser's window; its calls run beside the test's event loop."""

    def __init__(self, window):
        self.window = window

    async def open(self, url):
        await asyncio.to_thread(self.window.get, url)

    async def install(self):
        """Click on "Install" on Shopify's page, and wait until the browser has left it."""

        def click():
            self.window.find_element(By.TAG_NAME, "button").click()
            WebDriverWait(self.window, PAGE_WITHIN).until(lambda w: "/admin/oauth/" not in w.current_url)

        await asyncio.to_thread(click)

    async def shows(self, *texts):
        """Wait until all of it is visible somewhere on the page."""

        def visible(window):
            found = window.find_element(By.TAG_NAME, "body").text.lower()
            return all(text.lower() in found for text in texts)

        await asyncio.to_thread(WebDriverWait(self.window, PAGE_WITHIN).until, visible)

    async def is_live(self, shop):
        """Wait until the dashboard says of this shop that it is live."""
        await self.shows(shop)

        def live(window):
            return window.find_element(By.ID, "status").text.lower() == "live"

        await asyncio.to_thread(WebDriverWait(self.window, PAGE_WITHIN).until, live)

    @property
    def url(self):
        return self.window.current_url


@pytest.mark.browser
async def test_a_merchant_connects_a_store_and_sees_it_go_live(services, until, browser):
    """Connect, Install, live, equal; going back and forth harms nothing; uninstalled and back: live again."""
    await services.start_all(*ALL)
    page = Page(browser)
    async with make_store(services, orders=120) as store:
        begin = f"{services.ingress_url}/auth/shopify?{urlencode({'shop': store.shop, 'brand': store.brand})}"
        await page.open(begin)
        await page.shows("Install app", store.shop, "read_all_orders")
        assert page.url.startswith(f"{services.sandbox_url}/{store.shop}/admin/oauth/authorize?")
        await page.install()
        assert page.url.startswith(f"{services.status_url}/?brand={store.brand}&token=")
        await until(store.is_live, LIVE_WITHIN)
        await page.is_live(store.shop)
        assert await store.differences() == []
        _no_errors(browser, services.status_url)

        await asyncio.to_thread(browser.back)  # to Shopify's page, whose code has been used
        await page.shows("Install app")
        await asyncio.to_thread(browser.forward)
        await page.is_live(store.shop)

        first = await store.db.fetchrow("select * from control.connections")
        await store.post("uninstall")
        assert await store.status() == "removed"
        await page.open(begin)
        await page.install()
        await until(store.is_live, LIVE_WITHIN)
        await page.is_live(store.shop)
        again = await store.db.fetchrow("select * from control.connections")
        assert again["id"] == first["id"]
        assert await store.differences() == []


@pytest.mark.browser
async def test_the_callback_can_be_loaded_again_in_its_own_browser_only(services, until, browser, tmp_path):
    """Loaded again, the callback leads to the dashboard; in another browser it is a problem with a remedy."""
    await services.start_all("ingress", "status")
    page = Page(browser)
    async with make_store(services, orders=5) as store:
        await page.open(f"{services.ingress_url}/auth/shopify?shop={store.shop}&brand={store.brand}")
        callback = await _callback_of(store, page.url)
        await page.open(callback)
        assert page.url.startswith(f"{services.status_url}/?brand=")
        await page.open(callback)
        assert page.url.startswith(f"{services.status_url}/?brand=")
        created = "select count(*) from control.outbox where event_type = 'ConnectionCreated'"
        assert await store.db.fetchval(created) == 1

        with new_chromium(tmp_path / "other") as window:
            other = Page(window)
            await other.open(callback)
            await other.shows("Another browser", "start again")


async def _callback_of(store, consent_page):
    """Where the consent page's button leads, without clicking it."""
    answer = await store.http.get(consent_page + "&auto=1")
    return answer.headers["location"]


@pytest.mark.browser
async def test_a_sync_outlives_its_access_token(services, until, browser):
    """With tokens that live for seconds the whole route goes through: they are renewed on the way."""
    await services.start_all(*ALL)
    page = Page(browser)
    async with make_store(services, orders=400, objects_per_second=150, access_token_seconds=2) as store:
        await page.open(f"{services.ingress_url}/auth/shopify?shop={store.shop}&brand={store.brand}")
        await page.install()
        await until(store.is_live, LIVE_WITHIN)
        assert await store.differences() == []
        log = (await store.http.get(f"{store.control}/log")).json()
        assert log["counters"]["tokens_asked"] > 2
        assert await store.db.fetchval("select count(*) from control.dead_letters") == 0


def _no_errors(window, url):
    """The pages below the URL complained about nothing."""
    log = window.get_log("browser")
    assert [entry for entry in log if entry["level"] == "SEVERE" and url in entry["message"]] == []
