"""A real Chromium on the real service. Whatever goes wrong inside the page fails the test."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    Response,
    ViewportSize,
    expect,
    sync_playwright,
)

from scripts.stack.server import wait_until
from tests.support.deployment import ROOT, Deployment, Servers
from tests.support.http_client import Client

SHOTS = ROOT / "build" / "screenshots"
PATIENCE_MS = 15_000
DESKTOP = ViewportSize(width=1100, height=800)
PHONE = ViewportSize(width=360, height=740)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

# A browser reports an answer of 400 and above as an error of the page; those we provoke are looked at by the tests.
PROVOKED = re.compile(r"Failed to load resource: (the server responded|net::ERR)")

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert executable, "no chromium on PATH: `scripts/setup.sh test` installs it, CHROMIUM names another"
    with sync_playwright() as playwright:
        # The sandbox needs privileges that containers do not have; the pages are our own.
        launched = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def deployment(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("browser")
    with servers.settings("streams") as env, Deployment(folder, env, env["JWT_SECRET"]) as running:
        yield running


@pytest.fixture
def client(deployment: Deployment) -> Client:
    """Ann, without a browser."""
    return deployment.client


@pytest.fixture
def no_todos(client: Client) -> None:
    """An empty list to begin with."""
    todos = client.get("/todos").json()
    for todo in todos:
        owner = client.as_user(todo["user_id"])
        assert owner.request("DELETE", f"/todos/{todo['id']}").status == 202
    wait_until(lambda: client.get("/todos").json() == [], 15, "no todos")


class Watched:
    """What a page did: its requests, and everything that went wrong in it."""

    def __init__(self, page: Page, base_url: str) -> None:
        self._base_url = base_url
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.responses: list[Response] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._on_request)
        page.on("response", lambda response: self.responses.append(response))

    def _on_console(self, message: ConsoleMessage) -> None:
        # Violations of the page's policy are reported here too.
        if message.type in ("error", "warning") and not PROVOKED.match(message.text):
            self.errors.append(message.text)

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self._base_url, "data:", "blob:")):
            self.outside.append(request.url)


class Opener:
    """Opens pages of the service, each in a browser context (cookies, storage) of its own, and watches them."""

    def __init__(self, browser: Browser, base_url: str) -> None:
        self._browser = browser
        self._base_url = base_url
        self._watched: dict[Page, Watched] = {}

    def __call__(self, path: str, token: str | None = None) -> Page:
        """Open ``path``, signed in with ``token``."""
        context = self._browser.new_context(base_url=self._base_url, viewport=DESKTOP)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        self._watched[page] = Watched(page, self._base_url)
        if token is not None:
            context.add_init_script(f"sessionStorage['todo-api.token'] ??= {token!r}")
        page.goto(path)
        return page

    def watched(self, page: Page) -> Watched:
        return self._watched[page]

    def close(self) -> None:
        for page in self._watched:
            page.context.close()

    def assert_nothing_went_wrong(self) -> None:
        """No error in a script, no breach of the page's policy, no request to anywhere else."""
        assert [error for seen in self._watched.values() for error in seen.errors] == []
        assert [url for seen in self._watched.values() for url in seen.outside] == []


@pytest.fixture
def open_page(browser: Browser, deployment: Deployment) -> Iterator[Opener]:
    opener = Opener(browser, deployment.gunicorn.base_url)
    yield opener
    opener.close()
    opener.assert_nothing_went_wrong()


@pytest.fixture(scope="session")
def shoot() -> Callable[[Page, str], None]:
    """Keeps a picture of the whole page in ``build/screenshots``, for people to look at."""
    SHOTS.mkdir(parents=True, exist_ok=True)

    def shot(page: Page, name: str) -> None:
        path: Path = SHOTS / f"{name}.png"
        page.screenshot(path=path, full_page=True)

    return shot


def each_look(page: Page) -> Iterator[str]:
    """Yield the name of each look with the page in it: on a desktop and a phone, light and dark.

    Nothing may be wider than the window, down to 360 pixels.
    """
    for device, viewport in {"desktop": DESKTOP, "phone": PHONE}.items():
        page.set_viewport_size(viewport)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), device
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            yield f"{device}-{scheme}"


def assert_accessible(page: Page) -> None:
    """Check that axe-core finds no violation in the page as it is now."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
