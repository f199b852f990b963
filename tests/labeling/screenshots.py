"""Pictures of every front end for the documentation, from a real JupyterLab.

python -m tests.labeling.screenshots docs/figures/labeling
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Locator, expect, sync_playwright

from tests.capabilities import chromium
from tests.jupyter import ARGUMENTS, Lab, Server, open_page

CELL = """
import rlhf_lab as lab
posts = [post for post in lab.load_authored() if post.id.endswith("07")]
one = [{"prompt": post.query, "completion": post.candidates[1].text} for post in posts]
all_four = [{"prompt": post.query, "answers": [c.text for c in post.candidates]} for post in posts]
replies = iter(["My sister wants the dog back. What do I say?", "Dog, sister, vet bills. Keep him?"] * 9)
"""
CALLS = {
    "compare": "lab.compare(lab.authored_pairs(posts), store='a.sqlite')",
    "rank": "lab.rank(all_four, store='b.sqlite')",
    "rate": "lab.rate(one, store='c.sqlite')",
    "thumbs": "lab.thumbs(one, store='d.sqlite')",
    "edit": "lab.edit(one, store='e.sqlite')",
    "chat": "lab.chat(lambda messages: next(replies), store='f.sqlite')",
}
TASK = "Summarize: I took in my sister's dog for a month. It is a year now, I paid for his surgery; she wants him back."
KEYS = {
    "rank": ("ArrowDown", "ArrowDown", "Shift+ArrowUp", "ArrowDown", "ArrowDown", "="),
    "rate": ("7", "6", "5"),
    "thumbs": ("2",),
    "edit": ("e", "Control+Home", *["Control+Delete"] * 4),
}
"""What is pressed, so that there is something to see."""


def prepare(kind: str, widget: Locator) -> None:
    """Bring the widget into a state in which there is something to see."""
    if kind == "compare":
        widget.get_by_test_id("choice-2").click()
        expect(widget).to_have_attribute("data-state", "saved")
    widget.get_by_role("button", name="Guidelines").click()
    widget.focus()
    for key in KEYS.get(kind, ()):
        widget.page.keyboard.press(key)
    if kind == "edit":
        widget.page.keyboard.type("Update: ")
        expect(widget.locator("ins").first).to_be_visible()
    if kind == "chat":
        widget.get_by_role("textbox", name="Your message").fill(TASK)
        widget.page.keyboard.press("Control+Enter")
        widget.get_by_test_id("choice-1").wait_for()


def main(folder: str) -> None:
    """Write `KIND.png` for each, and `compare_guidelines.png`, `compare_dark.png` and `compare_narrow.png`."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    server = Server(Path(tempfile.mkdtemp()))
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
            page = open_page(browser)
            lab = Lab(page, server).open(server.notebook("pass"))
            for kind, call in CALLS.items():
                widget = lab.switch(server.notebook(CELL + call)).run()
                if kind == "compare":
                    lab.shoot(widget, out / "compare_guidelines.png")
                prepare(kind, widget)
                lab.shoot(widget, out / f"{kind}.png")
            widget = lab.switch(server.notebook(CELL + CALLS["compare"]), theme="JupyterLab Dark").run()
            lab.shoot(widget, out / "compare_dark.png")
            page.set_viewport_size({"width": 600, "height": 900})
            lab.switch(server.notebook(CELL + CALLS["compare"]))
            page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
            lab.shoot(lab.run(), out / "compare_narrow.png")
            browser.close()
    finally:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1])
