from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.capabilities import chromium

if TYPE_CHECKING:  # A machine without a browser has no Playwright either, perhaps.
    from playwright.sync_api import Browser, Page

    from tests.labeling.jupyter import Lab, Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Server"]:
    from tests.labeling.jupyter import Server

    server = Server(tmp_path_factory.mktemp("jupyter"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    from tests.labeling.jupyter import ARGUMENTS

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shared_page(browser: "Browser", server: "Server") -> Iterator["Page"]:
    """The one page that is loaded; tests open their notebooks in it."""
    from tests.labeling.jupyter import Lab, open_page

    page = open_page(browser)
    Lab(page, server).open(server.notebook("pass"))
    yield page
    page.context.close()


@pytest.fixture
def lab(shared_page: "Page", server: "Server") -> Iterator["Lab"]:
    from tests.labeling.jupyter import Lab

    shared_page.problems.clear()  # type: ignore[attr-defined]
    shared_page.outside.clear()  # type: ignore[attr-defined]
    shared_page.set_viewport_size({"width": 1280, "height": 900})
    yield Lab(shared_page, server)
    server.close_sessions()
