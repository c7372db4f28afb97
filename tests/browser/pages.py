"""What the tests do with a browser's window, and the page of somebody else that embeds the widget."""

from __future__ import annotations

import asyncio
import json
from html import escape
from pathlib import Path
from typing import Any

from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.support.wait import WebDriverWait

SHOWS_WITHIN = 20  # seconds
AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text("utf-8")
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}

# Writes down what a visitor would see of each widget: percents, whether it was hidden, brands of documents.
RECORDER = """
window.seen = {};
for (const widget of document.querySelectorAll("backstock-progress")) {
  const seen = (window.seen[widget.id] = { percents: [], hidden: [], brands: [], expired: 0 });
  const push = (list, value) => list.at(-1) === value || list.push(value);
  const look = () => {
    if (widget.shadowRoot) push(seen.hidden, widget.hidden);
    const shown = widget.shadowRoot?.querySelector(".percent").textContent;
    if (shown && !widget.hidden) push(seen.percents, parseInt(shown, 10));
    requestAnimationFrame(look);
  };
  look();
  const heard = ({ detail }) => push(seen.brands, `${detail.brandId} ${detail.shop}`);
  widget.addEventListener("backstock-progress", heard);
  widget.addEventListener("backstock-tokenexpired", () => (seen.expired += 1));
}
"""


def PAGE(status_url: str, query: dict[str, list[str]]) -> str:  # noqa: N802 - a template
    """A page of another origin with a widget for each brand; `more` are attributes."""
    more = query.get("more", [""])[0]
    widgets = "".join(
        f'<backstock-progress id="{escape(brand)}" brand="{escape(brand)}" '
        f'token-src="/token?brand={escape(brand)}" {more}></backstock-progress>'
        for brand in query.get("brand", [])
    )
    language = query.get("lang", ["en"])[0]
    return (
        f'<!doctype html><html lang="{language}" style="background: Canvas; color: CanvasText">'
        '<head><meta charset="utf-8"><title>Acme</title>'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f'<script type="module" src="{status_url}/widget.js"></script></head>'
        f"<body><main><h1>Acme</h1>{widgets}</main><script>{RECORDER}</script></body></html>"
    )


class Window:
    """A browser's window; its calls run beside the test's event loop."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    async def open(self, url: str) -> None:
        await asyncio.to_thread(self.driver.get, url)

    async def run(self, script: str, *arguments: Any) -> Any:
        """What the script returns."""
        return await asyncio.to_thread(self.driver.execute_script, script, *arguments)

    async def sees(self, condition: str, *arguments: Any, within: float = SHOWS_WITHIN) -> Any:
        """Waits until the JavaScript expression is true."""
        look = WebDriverWait(self.driver, within, poll_frequency=0.1).until
        script = f"return {condition}"
        return await asyncio.to_thread(
            look, lambda driver: driver.execute_script(script, *arguments), condition
        )

    async def press(self, *keys: str) -> None:
        actions = ActionChains(self.driver)
        for key in keys:
            actions.send_keys(key)
        await asyncio.to_thread(actions.perform)

    async def media(self, **features: str) -> None:
        """`color_scheme="dark"`: what the visitor prefers."""
        preferred = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()
        ]
        await asyncio.to_thread(
            self.driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"features": preferred}
        )

    async def violations(self) -> list[str]:
        """What axe finds wrong on this page, as `rule: where`."""
        await self.run(f"if (!window.axe) {{ {AXE} }}")
        script = f"axe.run(document, {json.dumps(RULES)}).then(arguments[0])"
        found = await asyncio.to_thread(self.driver.execute_async_script, script)
        return [
            f"{rule['id']}: {node['target']} {node['failureSummary']}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]

    def errors(self, *expected: str) -> list[str]:
        """Errors of the console since they were asked for last, but for those that the test has caused."""
        said = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [message for message in said if not any(part in message for part in expected)]
