"""The widget, the dashboard and the connections in a real Chromium, on real services and a real sync."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx
import pytest
from selenium.webdriver.common.keys import Keys
from stores import make_store

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

LIVE_WITHIN = 60  # seconds; two cores may be busy
NET = "net::ERR_"  # the browser's own note of a server that is away
WIDGET = "document.getElementById(arguments[0])"
INSIDE = f"{WIDGET}.shadowRoot"
# Every count of orders that was shown.
FIGURES = """
window.figures = [];
(function look() {
  const shown = parseInt(document.querySelector(".figure").textContent.replace(/,/g, ""), 10);
  if (window.figures.at(-1) !== shown) window.figures.push(shown);
  requestAnimationFrame(look);
})();
"""


async def test_a_widget_appears_moves_forward_through_restarts_and_hides_when_live(stage, chromium, until):
    """Status is killed and Redis restarted in mid-sync: no percent is ever lower than one before."""
    async with make_store(stage.services, orders=500, objects_per_second=250) as store:
        await store.connect()
        await chromium.open(f"{stage.url}?brand={store.brand}")
        await chromium.sees(f"{WIDGET}.progress?.percent > 5", store.brand, within=LIVE_WITHIN)
        await stage.status.restart()
        await chromium.sees(f"{WIDGET}.progress.percent > 15", store.brand, within=LIVE_WITHIN)
        stage.restart_redis()
        await until(store.is_live, LIVE_WITHIN)
        await chromium.sees(f"{WIDGET}.hidden && {WIDGET}.status === 'live'", store.brand)
        seen = (await chromium.run("return window.seen"))[store.brand]
        assert seen["percents"] == sorted(seen["percents"])
        assert len(seen["percents"]) >= 3
        assert seen["hidden"] == [True, False, True]
        assert chromium.errors(NET) == []


async def test_two_brands_side_by_side_never_see_each_other(stage, chromium, until):
    """Each widget hears of its own store only, and a token opens nothing else."""
    async with (
        make_store(stage.services, orders=40, customers=11, products=7) as one,
        make_store(stage.services, orders=90, customers=13, products=9) as two,
    ):
        await asyncio.gather(one.connect(), two.connect())
        await chromium.open(f"{stage.url}?brand={one.brand}&brand={two.brand}&more=persist")
        for store, orders in ((one, "40"), (two, "90")):
            await until(store.is_live, LIVE_WITHIN)
            await chromium.sees(f"{WIDGET}.status === 'live'", store.brand)
            progress = await chromium.run(f"return {WIDGET}.progress", store.brand)
            assert str(progress["resources"][0]["promoted"]) == orders
        seen = await chromium.run("return window.seen")
        assert seen[one.brand]["brands"] == [f"{one.brand} {one.shop}"]
        assert seen[two.brand]["brands"] == [f"{two.brand} {two.shop}"]
        assert chromium.errors() == []
        headers = {"Authorization": f"Bearer {stage.token(one.brand)}"}
        async with httpx.AsyncClient(base_url=stage.services.status_url, headers=headers) as http:
            answers = [
                await http.get(f"/api/sync/{two.brand}/{what}") for what in ("status", "data", "events")
            ]
            answers.append(await http.get("/api/operations"))
        assert [answer.status_code for answer in answers] == [403, 403, 403, 401]
        assert not any(two.shop in answer.text for answer in answers)


@pytest.fixture
async def slow(stage):
    """A store whose history takes longer than any test."""
    async with make_store(stage.services, orders=300, objects_per_second=5) as store:
        await store.connect()
        yield store


async def _connections(stage):
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{stage.services.status_url}/metrics")
    return next(
        line for line in answer.text.splitlines() if line.startswith("backstock_sse_clients ")
    ).split()[1]


async def test_without_streams_it_polls_and_a_hidden_tab_lets_go(stage, chromium, slow, until):
    """A proxy that passes no stream is got around; a tab in the background holds no connection."""
    await chromium.open(f"{stage.url}?brand={slow.brand}&more=src%3D%22/%22")
    await chromium.sees(f"{WIDGET}.progress?.percent > 0 && !{WIDGET}.hidden", slow.brand)
    assert chromium.errors() == []

    await chromium.open(f"{stage.url}?brand={slow.brand}")
    await until(lambda: _is(stage, "1.0"))
    driver, first = chromium.driver, chromium.driver.current_window_handle
    await asyncio.to_thread(driver.switch_to.new_window, "tab")
    await until(lambda: _is(stage, "0.0"))
    await asyncio.to_thread(driver.close)
    await asyncio.to_thread(driver.switch_to.window, first)
    await until(lambda: _is(stage, "1.0"))
    await chromium.sees(f"!{WIDGET}.hidden", slow.brand)


async def _is(stage, count):
    return await _connections(stage) == count


async def test_an_expired_token_is_renewed_by_the_page(stage, chromium, slow):
    """The page hears of it; with token-src the widget goes on by itself, without it says what to do."""
    over, _ = stage.tokens.issue(slow.brand, timedelta(seconds=-5))
    await chromium.open(f"{stage.url}?brand={slow.brand}&more=token%3D%22{over}%22")
    await chromium.sees(f"{WIDGET}.progress?.percent > 0 && !{WIDGET}.hidden", slow.brand)
    assert (await chromium.run("return window.seen"))[slow.brand]["expired"] == 1
    assert chromium.errors("401") == []

    await chromium.open(f"{stage.services.status_url}/?brand={slow.brand}&token={over}")
    await chromium.sees("document.querySelector('#progress').shadowRoot.textContent.includes('has expired')")
    assert f"backstock status {slow.brand}" in await chromium.run(
        "return document.querySelector('#progress').shadowRoot.querySelector('.error').textContent"
    )
    # No zeros, which would say that the store is empty.
    assert await chromium.run("return document.querySelector('#page').innerText.includes('Orders')") is False


async def test_a_token_that_comes_again_though_it_was_refused_is_no_end(stage, chromium, slow):
    """The page's server may keep an old token for a while: the widget asks on until there is another."""
    over, _ = stage.tokens.issue(slow.brand, timedelta(seconds=-5))
    await chromium.open(f"{stage.url}?brand={slow.brand}")
    await chromium.sees(f"{WIDGET}.progress?.percent > 0", slow.brand)
    await chromium.run(KEEPS_TOKEN, slow.brand, over)
    await chromium.sees("window.seen[arguments[0]].expired >= 3", slow.brand)
    await chromium.sees(f"{WIDGET}.getAttribute('token') !== arguments[1]", slow.brand, over)
    await chromium.sees(f"{WIDGET}.shadowRoot.querySelector('.error').hidden", slow.brand)
    assert chromium.errors("401") == []


# The server answers with the old token three times; twenty seconds are one.
KEEPS_TOKEN = """
const [brand, old] = arguments, [ask, wait, now] = [fetch, setTimeout, performance.now.bind(performance)];
let times = 0;
window.setTimeout = (work, ms) => wait(work, ms / 20);
performance.now = () => now() * 20;
window.fetch = async (url, options) => {
  const keeps = String(url).includes("/token") && (times += 1) <= 3;
  return keeps ? Response.json({ token: old }) : ask(url, options);
};
document.getElementById(brand).setAttribute("token", old);
"""


async def test_the_dashboard_says_when_it_hears_nothing_and_its_figures_never_fall(stage, chromium):
    """While status is away the page says so; what Shopify has only prepared is no order that is here."""
    async with make_store(stage.services, orders=3000, objects_per_second=600) as store:
        await store.connect()
        await chromium.open(stage.dashboard(store.brand))
        await chromium.sees("document.querySelector('.figure')")
        await chromium.run(FIGURES)
        await chromium.sees(
            "document.querySelector('#resources').textContent.includes('prepared at Shopify')"
        )
        await chromium.sees("window.figures.at(-1) > 0", within=LIVE_WITHIN)
        await stage.status.kill()
        await chromium.sees("document.querySelector('#limits').textContent.includes('connection is lost')")
        await stage.status.restart()
        await chromium.sees("document.querySelector('#limits').hidden")
        await chromium.sees("window.figures.at(-1) >= 2900", within=LIVE_WITHIN)
        seen = await chromium.run("return window.figures")
        assert seen == sorted(seen)
        assert chromium.errors(NET) == []


ACCENT_DOTS = """
const canvas = document.querySelector("#chart canvas");
const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
let dots = 0;
for (let at = 0; at < data.length; at += 4) dots += data[at] === 13 && data[at + 1] === 122;
return dots;
"""


async def test_a_live_dashboard_says_of_when_its_figures_are(stage, chromium, until):
    """The proof bears its time, as orders come after it; a single day is drawn; months are called so."""
    async with make_store(stage.services, orders=0, customers=0, products=1) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        await store.post("orders")
        await chromium.media(color_scheme="light")
        await chromium.open(stage.dashboard(store.brand))
        await chromium.sees("document.querySelectorAll('#newest time').length === 1")
        proven = "document.querySelector('#proven')"
        await chromium.sees(f"{proven}.innerText.includes('0 of 0 orders')")
        assert "compared" in await chromium.run(f"return {proven}.innerText")
        assert "0 as of" in await chromium.run("return document.querySelector('#resources').innerText")
        assert await chromium.run(ACCENT_DOTS) > 0
        await chromium.run("document.querySelector('#span input[value=all]').click()")
        title = await chromium.run("return document.querySelector('#chart-title').textContent")
        assert title == "Orders per month"
        assert chromium.errors() == []
        await chromium.media()


async def test_texts_are_the_pages_language_and_unknown_phases_are_words(stage, chromium, slow):
    """German where the page is German; texts of the page's own go first; nothing reads undefined."""
    await chromium.open(f"{stage.url}?brand={slow.brand}&lang=de-AT")
    await chromium.sees(f"{INSIDE}.textContent.includes('Bestellungen')", slow.brand)
    await chromium.run(
        "const widget = document.getElementById(arguments[0]);"
        "widget.texts = { 'resource.orders': 'Aufträge', 'title.backfilling': 'Gleich fertig' };"
        "const doc = structuredClone(widget.progress);"
        "doc.resources[2].phase = 'waiting_for_slot'; doc.syncStatus = 'resting'; window.doc = doc",
        slow.brand,
    )
    await chromium.sees(f"{INSIDE}.textContent.includes('Aufträge')", slow.brand)
    shown = await chromium.run(f"return {INSIDE}.textContent", slow.brand)
    assert "Einzelheiten" in shown
    assert "undefined" not in shown
    assert "{n}" not in shown


async def test_a_narrow_place_and_a_page_from_right_to_left(stage, chromium, slow):
    """A name and its count share a line, the count at the edge; a milestone's dot keeps off its text."""
    await chromium.open(f"{stage.url}?brand={slow.brand}")
    await chromium.run(f"{WIDGET}.style.width = '320px'; document.dir = 'rtl'", slow.brand)
    await chromium.sees(f"{INSIDE}?.querySelector('.rows').offsetHeight > 0", slow.brand)
    name, count, rows, dot = await chromium.run(
        f"const root = {INSIDE}, box = (what) => root.querySelector(what).getBoundingClientRect().toJSON();"
        "const dot = getComputedStyle(root.querySelector('li'), '::before').marginLeft;"
        "return [box('.name'), box('.count'), box('.rows'), dot]",
        slow.brand,
    )
    assert name["top"] == pytest.approx(count["top"], abs=3)
    assert count["left"] == pytest.approx(rows["left"], abs=1)
    assert dot == "6px"


async def test_keyboard_and_reduced_motion(stage, chromium, slow):
    """Details fold and unfold by keys; who wants no motion gets none."""
    await chromium.media(reduced_motion="reduce")
    await chromium.open(f"{stage.url}?brand={slow.brand}")
    await chromium.sees(f"{INSIDE}?.querySelector('.rows').offsetHeight > 0", slow.brand)
    still = await chromium.run(
        f"const fill = {INSIDE}.querySelector('.main i');"
        "return [getComputedStyle(fill, '::after').animationName, getComputedStyle(fill).transitionProperty]",
        slow.brand,
    )
    assert still[0] == "none"
    await chromium.press(Keys.TAB, Keys.ENTER)
    await chromium.sees(f"!{INSIDE}.querySelector('details').open", slow.brand)
    await chromium.press(Keys.SPACE)
    await chromium.sees(f"{INSIDE}.querySelector('details').open", slow.brand)
    await chromium.media()


async def test_an_operator_finds_the_store_that_needs_help(stage, chromium, slow):
    """The key is asked for and stays out of every address; a name leads to the dashboard; all by keys."""
    url = f"{stage.services.status_url}/connections"
    await chromium.open(url)
    await chromium.sees("document.activeElement.name === 'key'")
    await chromium.press("wrong", Keys.ENTER)
    await chromium.sees("document.querySelector('#refusal').textContent.includes('not the one')")
    await chromium.press(stage.services.api_key, Keys.ENTER)
    await chromium.sees("document.querySelectorAll('#rows a').length > 0")
    shown = await chromium.run("return document.querySelector('#page').textContent")
    assert "NaN" not in shown
    assert "undefined" not in shown
    assert await chromium.violations() == []
    await chromium.run(f"document.querySelector('[data-brand=\"{slow.brand}\"]').focus()")
    await chromium.press(Keys.ENTER)
    await chromium.sees("document.querySelector('#shop')?.textContent === arguments[0]", slow.shop)
    assert stage.services.api_key not in chromium.driver.current_url
    assert chromium.errors("401") == []
    await chromium.run("sessionStorage.clear()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_wrong(stage, chromium, slow, until, scheme):
    """Widget and dashboard, while they load, with an error, with notes and live, in both colour schemes."""
    granted = ["read_orders", "read_customers", "read_products", "read_inventory"]
    await chromium.media(color_scheme=scheme, reduced_motion="reduce")
    async with make_store(stage.services, orders=30, scopes=granted) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        for brand in (slow.brand, store.brand):
            await chromium.open(stage.dashboard(brand))
            await chromium.sees(
                "document.querySelector('#newest tr') && document.querySelector('#chart canvas')"
            )
            assert await chromium.violations() == []
            assert chromium.errors() == []
        await chromium.sees("!document.querySelector('#proven').hidden")
        assert "60 days" in await chromium.run("return document.querySelector('#limits').textContent")
        await store.post("uninstall")
        await chromium.open(stage.dashboard(store.brand))
        await chromium.sees("!document.querySelector('#error').hidden")
        assert await chromium.violations() == []
        await chromium.open(f"{stage.url}?brand={slow.brand}&brand={store.brand}")
        await chromium.sees(f"!{WIDGET}.hidden", slow.brand)
        await chromium.sees(f"{INSIDE}?.querySelector('.error').textContent", store.brand)
        assert await chromium.violations() == []
        assert chromium.errors() == []
    await chromium.media()
