"""The harness: a fixed environment, and an honest account of the tests that a machine cannot run.

A test whose need is absent is left out, and the summary says how to add what it needs. RLHF_LAB_REQUIRE turns leaving
out into failing: for named needs (`trl,real_data`), or with `all` for every test that is left out, whatever its reason.
"""

import os
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

# Set before anything imports torch, and inherited by the processes that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Not as a default: a worker inherits its controller's two threads, and twice as many threads as cores, each
    # spinning while it waits for the others, train several times slower.
    os.environ["OMP_NUM_THREADS"] = "1"
else:
    os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))

import hypothesis
import pytest

from tests.capabilities import CAPABILITIES, chromium

if TYPE_CHECKING:  # A machine without a browser has no Playwright either, perhaps.
    from playwright.sync_api import Browser, Page

    from tests.jupyter import Lab, Server

# The same examples every time, and no verdict about time, which depends on who else uses the machine.
hypothesis.settings.register_profile("rlhf_lab", deadline=None, derandomize=True)
hypothesis.settings.load_profile("rlhf_lab")

ABSENT = "absent capability"
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks as small as the tests' gain nothing from a second thread, which costs seconds where cores are shared."""
    import torch  # Here, so that a run without such a test does not pay for it.

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Server"]:
    from tests.jupyter import Server

    server = Server(tmp_path_factory.mktemp("jupyter"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    from tests.jupyter import ARGUMENTS

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shared_page(browser: "Browser", server: "Server") -> Iterator["Page"]:
    """The one page that is loaded; tests open their notebooks in it."""
    from tests.jupyter import Lab, open_page

    page = open_page(browser)
    Lab(page, server).open(server.notebook("pass"))
    yield page
    page.context.close()


@pytest.fixture
def lab(shared_page: "Page", server: "Server") -> Iterator["Lab"]:
    from tests.jupyter import Lab

    shared_page.problems.clear()  # type: ignore[attr-defined]
    shared_page.outside.clear()  # type: ignore[attr-defined]
    shared_page.set_viewport_size({"width": 1280, "height": 900})
    yield Lab(shared_page, server)
    server.close_sessions()


def _required() -> set[str]:
    names = {name.strip() for name in os.environ.get("RLHF_LAB_REQUIRE", "").split(",")} - {""}
    if unknown := names - set(CAPABILITIES) - {"all"}:
        raise pytest.UsageError(
            f"RLHF_LAB_REQUIRE names {', '.join(sorted(unknown))}; known are all, {', '.join(CAPABILITIES)}."
        )
    return names


def _needs(item: pytest.Item) -> list[str]:
    named = [name for mark in item.iter_markers("needs") for name in mark.args]
    implied = [name for name, need in CAPABILITIES.items() if need.marker and item.get_closest_marker(need.marker)]
    return list(dict.fromkeys(named + implied))


def _is_forbidden(absent: list[str]) -> bool:
    """Whether leaving out a test is forbidden: one that lacks `absent`, or one left out for a reason of its own."""
    required = _required()
    if not absent:
        return "all" in required
    return any(name in required or ("all" in required and not CAPABILITIES[name].may_be_absent) for name in absent)


def pytest_configure() -> None:
    _required()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if unknown := set(_needs(item)) - set(CAPABILITIES):
            raise pytest.UsageError(
                f"{item.nodeid} needs {', '.join(sorted(unknown))}; "
                f"tests/capabilities.py has {', '.join(CAPABILITIES)}."
            )
    _slow_files_first(items)


def _slow_files_first(items: list[pytest.Item]) -> None:
    """The files with the largest share of slow tests first: two workers, each with one file at a time, end together."""
    files: dict[Path, list[bool]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: -sum(files[item.path]) / len(files[item.path]))  # A file's tests keep their order.


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    absent = [name for name in _needs(item) if not CAPABILITIES[name].is_present()]
    if absent:
        item.user_properties.extend((ABSENT, name) for name in absent)
        pytest.skip("; ".join(f"needs {name}; how to add it: {CAPABILITIES[name].how}" for name in absent))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _judged((yield), _absent(item))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _judged((yield), [])


def _judged(report: Report, absent: list[str]) -> Report:
    """The report, a failure if it leaves out what must not be left out."""
    if report.skipped and not hasattr(report, "wasxfail") and _is_forbidden(absent):
        report.outcome = "failed"
        report.longrepr = f"Left out, which RLHF_LAB_REQUIRE forbids: {_reason(report)}"
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _absent(source: pytest.Item | pytest.TestReport | pytest.CollectReport) -> list[str]:
    return [str(name) for key, name in getattr(source, "user_properties", ()) if key == ABSENT]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """For each absent capability, how many tests need it and how to add it; then those left out otherwise."""
    reports = [report for kind in ("skipped", "failed", "error") for report in terminalreporter.stats.get(kind, [])]
    counts = Counter(name for report in reports for name in _absent(report))
    others = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []) if not _absent(report))
    if not counts and not others:
        return
    terminalreporter.section("left out")
    for name, count in counts.items():
        need = CAPABILITIES[name]
        note = f" (allowed: {need.may_be_absent})" if need.may_be_absent else ""
        terminalreporter.line(f"Left out: {_tests(count)} {name}{note}: how to add it: {need.how}")
    for reason, count in others.items():
        terminalreporter.line(f"Left out: {count} skipped: {reason}")


def _tests(count: int) -> str:
    return "1 test needs" if count == 1 else f"{count} tests need"
