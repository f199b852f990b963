"""A real JupyterLab in a real browser, for tests of the front ends.

The server has configuration, data and home folders of its own; whatever a page asks of other machines is refused and
written down.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, Route, expect

ROOT = Path(__file__).resolve().parents[1]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
DISABLED = ("@jupyterlab/debugger-extension", "@jupyterlab/extensionmanager-extension")
FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
    "HOME": "home",
}


class Server:
    """A JupyterLab server in `base`, its notebooks in `base / "root"`."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.root.mkdir(parents=True)
        self.token = secrets.token_hex(16)
        # With the tests' own MPLBACKEND a kernel would show no figure.
        foreign = ("JUPYTER", "IPYTHON", "MPLBACKEND")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.environment = kept | {"PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1"}
        for name, folder in FOLDERS.items():
            (base / folder).mkdir()
            self.environment[name] = str(base / folder)
        lab = base / "config" / "labconfig"
        lab.mkdir()
        (lab / "default_setting_overrides.json").write_text(json.dumps(SETTINGS))
        (lab / "page_config.json").write_text(json.dumps({"disabledExtensions": dict.fromkeys(DISABLED, True)}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = base / "server.log"
        self._start()

    def _start(self) -> None:
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": self.port,
            "ServerApp.port_retries": 0,
            "ServerApp.root_dir": self.root,
            "ServerApp.terminals_enabled": False,
            "IdentityProvider.token": self.token,
            "LabApp.expose_app_in_browser": True,
            "LabApp.news_url": "",
            "LabApp.extension_manager": "readonly",
            "FileContentsManager.delete_to_trash": False,
            "AsyncIOLoopKernelRestarter.restart_limit": 1000,  # Some tests kill a kernel again and again.
        }
        command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
        command += [f"--{name}={value}" for name, value in options.items()]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.root,
                start_new_session=True,
            )
        end = time.monotonic() + 90
        while True:
            try:
                self.api("GET", "/api/status")
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < end, self.log.read_text()
                time.sleep(0.1)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(self.url + path, method=method, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def notebook(self, *cells: str) -> str:
        name = f"t-{uuid.uuid4().hex[:8]}.ipynb"
        kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        empty = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
        made = [empty | {"id": f"c{index}", "source": source} for index, source in enumerate(cells)]
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": made}
        (self.root / name).write_text(json.dumps(notebook))
        return name

    def kernel_process(self, notebook: str) -> int:
        """Process number of a notebook's kernel: its command line names its connection file."""
        sessions = self.api("GET", "/api/sessions")
        kernel = next(session["kernel"]["id"] for session in sessions if session["path"] == notebook)
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if kernel.encode() in command.read_bytes():
                    return int(command.parent.name)
        raise LookupError(kernel)

    def close_sessions(self) -> None:
        for session in self.api("GET", "/api/sessions"):
            self.api("DELETE", f"/api/sessions/{session['id']}")

    def stop(self) -> None:
        with contextlib.suppress(Exception):
            self.close_sessions()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)


IDLE = """async () => {
  const w = window.jupyterapp.shell.currentWidget;
  if (!w || !w.sessionContext) return false;
  await w.context.ready; await w.sessionContext.ready;
  return w.sessionContext.session?.kernel?.status === 'idle'; }"""
RUN_ALL = """async (ms) => {
  const w = window.jupyterapp.shell.currentWidget;
  window.jupyterapp.shell.activateById(w.id);
  const late = new Promise((_, no) => setTimeout(() => no(new Error('the cells took more than ' + ms + ' ms')), ms));
  return await Promise.race([window.jupyterapp.commands.execute('notebook:run-all-cells'), late]); }"""
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets.map(c => ({
  type: c.model.type, source: c.model.sharedModel.getSource(), count: c.model.executionCount ?? null,
  outputs: c.model.outputs ? c.model.outputs.toJSON().map(o => o.ename
    ? o.ename + ': ' + o.evalue : o.output_type) : [] }))"""


class Lab:
    """One notebook in one page."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server, self.name = page, server, ""

    def open(self, name: str, theme: str = "JupyterLab Light") -> "Lab":
        """Load the page anew with the notebook in it."""
        self.name = name
        space = f"w-{uuid.uuid4().hex[:8]}"
        address = f"{self.server.url}/lab/workspaces/{space}/tree/{name}?reset&token={self.server.token}"
        self.page.goto(address, wait_until="domcontentloaded")
        self.wait()
        self.theme(theme)
        return self

    def wait(self) -> None:
        """Until the notebook is there and its kernel idle."""
        page = self.page
        restored = "() => window.jupyterapp && window.jupyterapp.restored.then(() => true)"
        page.wait_for_function(restored, timeout=90_000)
        page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=90_000)
        page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell").first.wait_for()
        page.wait_for_function(IDLE, timeout=90_000)

    def switch(self, name: str, theme: str = "JupyterLab Light") -> "Lab":
        """Another notebook in the page that is loaded already."""
        self.command("application:close-all")
        dialog = self.page.locator(".jp-Dialog")
        closed = "() => document.querySelector('.jp-Dialog') || !document.querySelector('.jp-NotebookPanel')"
        self.page.wait_for_function(closed)
        if dialog.count():
            dialog.locator("button.jp-mod-warn").click()
        self.page.locator(".jp-NotebookPanel").wait_for(state="detached")
        self.server.close_sessions()
        self.name = name
        self.command("docmanager:open", {"path": name, "factory": "Notebook"})
        self.wait()
        self.theme(theme)
        return self

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        run = "([c, a]) => { window.jupyterapp.commands.execute(c, a); return true; }"
        wait = "([c, a]) => window.jupyterapp.commands.execute(c, a).then(() => true)"
        self.page.evaluate(run if name == "application:close-all" else wait, [name, arguments or {}])

    def theme(self, name: str) -> None:
        """The theme is a setting of the server, which the next test inherits: each sets its own."""
        self.command("apputils:change-theme", {"theme": name})
        light = "false" if "Dark" in name else "true"
        shown = self.page.locator(f'body[data-jp-theme-name="{name}"][data-jp-theme-light="{light}"]')
        shown.wait_for(state="attached")

    def run_all(self, timeout_ms: int = 90_000) -> bool:
        """Run all cells; whether none raised."""
        return self.page.evaluate(RUN_ALL, timeout_ms)

    def run(self, timeout_ms: int = 90_000) -> Locator:
        """Run all cells; the widget of the last."""
        assert self.run_all(timeout_ms), self.cells()
        widget = self.page.get_by_test_id("rlhf-label").last
        expect(widget).to_be_visible()
        return widget

    def cells(self) -> list[dict[str, Any]]:
        return self.page.evaluate(CELLS)

    def restart_kernel(self) -> None:
        self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart().then(() => true)"
        )
        self.page.wait_for_function(IDLE, timeout=60_000)

    def shoot(self, widget: Locator, path: Path) -> None:
        """A picture of the whole widget; JupyterLab scrolls an inner pane, so the window must grow."""
        size = self.page.viewport_size
        box = widget.bounding_box()
        assert size is not None and box is not None
        self.page.set_viewport_size({"width": size["width"], "height": max(size["height"], int(box["height"]) + 260)})
        widget.scroll_into_view_if_needed()
        widget.screenshot(path=path, animations="disabled", caret="hide")
        self.page.set_viewport_size(size)


def open_page(browser: Browser, **options: Any) -> Page:
    """A page that reaches this machine only; `problems` and `outside` hold what went wrong and what it asked for."""
    context = browser.new_context(
        **({"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", "locale": "en-US"} | options)
    )
    context.set_default_timeout(15_000)
    page = context.new_page()
    problems: list[str] = []
    outside: list[str] = []

    def refuse(route: Route) -> None:
        outside.append(route.request.url)
        route.abort()

    context.route(lambda url: not url.startswith(("http://127.0.0.1", "data:", "blob:")), refuse)
    page.on("pageerror", lambda error: problems.append(f"pageerror: {error}"))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.problems, page.outside = problems, outside  # type: ignore[attr-defined]
    return page
