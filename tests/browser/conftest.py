"""Debian's Chromium, without a screen: what it does on a page, and what it complains of."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A desk and a phone.
WIDTHS = (1280, 390)
AXE = Path(__file__).parent / "build" / "node_modules" / "axe-core" / "axe.min.js"
# Where the pictures go that a person looks at.
PICTURES = Path(os.environ.get("CDB_PICTURES", Path(__file__).parent / "build" / "pictures"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser, once for all tests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        yield browser
        browser.close()


class Visit:
    """A person's visit: a page of a browser, and all that it asked for and complained of."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dismiss)

    def _dismiss(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def picture(self, name: str) -> None:
        """Keep a picture of all of the page."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=True)

    def violations(self) -> list[str]:
        """What axe-core finds wrong: the rule, and where."""
        self.page.evaluate(AXE.read_text())
        found: dict[str, Any] = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{violation['id']}: {node['html'][:200]} {node['failureSummary']}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]

    def is_too_wide(self) -> bool:
        """Whether the page has to be moved sideways to be read."""
        wide: bool = self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        return wide


Visiting = Callable[..., Visit]


@pytest.fixture
def visiting(chromium: Browser) -> Iterator[Visiting]:
    """A function that begins a visit, of a width and a colour scheme, with JavaScript or without."""
    with ExitStack() as stack:

        def visit(width: int = 1280, scheme: str = "light", *, scripts: bool = True) -> Visit:
            return stack.enter_context(_visit(chromium, width, scheme, scripts))

        yield visit


@contextmanager
def _visit(chromium: Browser, width: int, scheme: Any, scripts: bool) -> Iterator[Visit]:
    context = chromium.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        java_script_enabled=scripts,
        accept_downloads=True,
    )
    context.set_default_timeout(20_000)
    try:
        yield Visit(context)
    finally:
        context.close()
