"""One Chromium, one set of services and one host page's server for all browser tests of a module.

chromium   a headless Chromium (tests/chromium.py)
stage      every service, a Redis that may be restarted, and a page of somebody else with the widget in it
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from chromium import new_chromium
from pages import PAGE, Window

from backstock.embedded import EmbeddedRedis
from shared.widget_tokens import WidgetTokens

ALL = ("ingress", "bulk-runner", "promoter", "status")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """A Chromium that nobody has used before."""
    with new_chromium(tmp_path_factory.mktemp("chromium")) as driven:
        yield Window(driven)


@pytest.fixture(autouse=True)
def _silent_console(chromium: Window) -> Iterator[None]:
    """No test ends with an error in the console; what a test breaks on purpose it has looked at itself."""
    chromium.errors()  # what an earlier test's page said while it was left
    yield
    assert chromium.errors("net::ERR", "401") == []


class Stage:
    """The services, and a server of another origin: `/?brand=a&brand=b` embeds a widget for each."""

    def __init__(self, services: Any, redis: EmbeddedRedis, started: dict[str, Any]) -> None:
        self.services, self.redis, self.status = services, redis, started["status"]
        self.tokens = WidgetTokens((services.env["BACKSTOCK_SECRET_KEYS"],))
        self.host = ThreadingHTTPServer(("127.0.0.1", 0), _host_handler(self))
        threading.Thread(target=self.host.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.host.server_port}/"

    def token(self, brand: str) -> str:
        return self.tokens.issue(brand)[0]

    def dashboard(self, brand: str) -> str:
        return f"{self.services.status_url}/?brand={brand}&token={self.token(brand)}"

    def restart_redis(self) -> None:
        self.redis.stop()
        self.redis.start()


def _host_handler(stage: Stage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """A page with widgets, and the page of its own that gives them tokens."""

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            query = parse_qs(asked.query)
            match asked.path:
                case "/":
                    self._answer("text/html; charset=utf-8", PAGE(stage.services.status_url, query))
                case "/token":
                    self._answer("application/json", f'{{"token": "{stage.token(query["brand"][0])}"}}')
                case path if path.endswith("/events"):  # a proxy that lets no streams through
                    self.send_response(204)
                    self.end_headers()
                case path if path.startswith("/api/"):
                    self._pass_on()
                case _:
                    self.send_response(204)
                    self.end_headers()

        def _pass_on(self) -> None:
            headers = {"Authorization": self.headers.get("Authorization", "")}
            answer = httpx.get(stage.services.status_url + self.path, headers=headers)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.end_headers()
            self.wfile.write(answer.content)

        def _answer(self, kind: str, body: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

    return Handler


@pytest.fixture(scope="module")
def stage(module_services: Any, server_folder_of_module: Path) -> Iterator[Stage]:
    """Everything runs, with a Redis of its own."""
    redis = EmbeddedRedis(server_folder_of_module / "redis", aof=False).start()
    module_services.env["REDIS_URL"] = redis.url
    started = asyncio.run(module_services.start_all(*ALL))
    stage = Stage(module_services, redis, started)
    yield stage
    stage.host.shutdown()
    stage.host.server_close()
    module_services.end()
    with suppress(OSError):
        redis.stop()
