"""Pictures of every front end for the documentation, from a real JupyterLab.

python -m tests.labeling.screenshots docs/figures/labeling
"""

import re
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.capabilities import chromium
from tests.jupyter import ARGUMENTS, Lab, Server, open_page

CELL = """
import rlhf_lab as lab
posts = [post for post in lab.load_authored() if post.id.endswith("07")]
one = [{"prompt": post.query, "completion": post.candidates[1].text} for post in posts]
all_four = [{"prompt": post.query, "answers": [c.text for c in post.candidates]} for post in posts]
replies = iter(["My sister wants the dog back. What do I say?", "Dog, sister, vet bills. Keep him?"] * 9)
"""
CAR = """
import rlhf_lab as lab
import gymnasium, numpy as np
from PIL import Image, ImageDraw

class Drawn(gymnasium.Wrapper):
    # MountainCar as Gymnasium draws it, without the library that it needs for that.
    render_mode = "rgb_array"

    def render(self):
        image = Image.new("RGB", (1200, 800), "white")
        draw, place = ImageDraw.Draw(image), self.unwrapped.state[0]
        at = lambda x, above=0: ((x + 1.2) / 1.8 * 1200, 800 - (np.sin(3 * x) * 0.45 + 0.55) * 667 - above)
        draw.line([at(x) for x in np.linspace(-1.2, 0.6, 200)], fill="black", width=4)
        draw.line([at(0.5), at(0.5, 110)], fill="black", width=4)
        draw.polygon([at(0.5, 110), at(0.5, 60), (at(0.5)[0] + 60, at(0.5, 85)[1])], fill="#c09000")
        x, y = at(place, 24)
        draw.ellipse([x - 24, y - 24, x + 24, y + 24], fill="#30508f")
        return np.asarray(image.reduce(2))

task = Drawn(lab.make_task("MountainCar-v0"))
agent = lab.TAMERAgent(lab.radial_features(task), lab.TAMERConfig(steps_per_second=5))

def pump(speed):
    return 2 if speed > 0 else 0

def clip(push):
    (_, speed), _ = task.reset(seed=1)
    frames = []
    for step in range(100):
        (_, speed), *_ = task.step(push(speed))
        if step >= 75:
            frames.append(task.render())
    return np.stack(frames)
"""
CALLS = {
    "compare": "lab.compare(lab.authored_pairs(posts), store='a.sqlite')",
    "rank": "lab.rank(all_four, store='b.sqlite')",
    "rate": "lab.rate(one, store='c.sqlite')",
    "thumbs": "lab.thumbs(one, store='d.sqlite')",
    "edit": "lab.edit(one, store='e.sqlite')",
    "chat": "lab.chat(lambda messages: next(replies), store='f.sqlite')",
    "compare_clips": "lab.compare_clips([(clip(pump), clip(lambda speed: 2))], store='g.sqlite')",
    "probe": "lab.probe(lab.load_trained('human_feedback'), rules=['reader', 'brief'], store='i.sqlite')",
    "tamer_pad": "lab.tamer_pad(task, agent, store='h.sqlite')",
}
TASK = "Summarize: I took in my sister's dog for a month. It is a year now, I paid for his surgery; she wants him back."
KEYS = {
    "rank": ("ArrowDown", "ArrowDown", "Shift+ArrowUp", "ArrowDown", "ArrowDown", "="),
    "rate": ("7", "6", "5"),
    "thumbs": ("2",),
    "edit": ("e", "Control+Home", *["Control+Delete"] * 4),
}
"""What is pressed, so that there is something to see."""


def cell(kind: str) -> str:
    """What makes the widget."""
    return (CAR if kind in ("compare_clips", "tamer_pad") else CELL) + CALLS[kind]


def prepare(kind: str, widget: Locator) -> None:
    """Bring the widget into a state in which there is something to see."""
    if kind == "compare":
        widget.get_by_test_id("choice-2").click()
        expect(widget).to_have_attribute("data-state", "saved")
    widget.get_by_role("button", name="Guidelines").click()
    widget.focus()
    for key in KEYS.get(kind, ()):
        widget.page.keyboard.press(key)
    if kind == "compare_clips":
        widget.page.keyboard.press("r")
        expect(widget.get_by_test_id("moment")).to_have_text(re.compile(r"Frame 1\d of 25"))
        widget.page.keyboard.press("Space")
    if kind == "tamer_pad":
        widget.page.keyboard.press("Space")
        expect(widget.get_by_test_id("info")).to_contain_text(re.compile(r"step 1\d"))
        widget.page.keyboard.press("1")
        expect(widget).to_have_attribute("data-state", "saved")
    if kind == "probe":
        trap(widget)
        widget.page.keyboard.press("1")
        widget.locator(".rl-told").wait_for()
    if kind == "edit":
        widget.page.keyboard.type("Update: ")
        expect(widget.locator("ins").first).to_be_visible()
    if kind == "chat":
        widget.get_by_role("textbox", name="Your message").fill(TASK)
        widget.page.keyboard.press("Control+Enter")
        widget.get_by_test_id("choice-1").wait_for()


def trap(widget: Locator) -> None:
    """Begin a summary, up to the verdict."""
    for key in ("w", "Control+a"):
        widget.page.keyboard.press(key)
    widget.page.keyboard.type("Has")
    widget.page.keyboard.press("Control+Enter")
    widget.get_by_test_id("verdict-broken").wait_for()


def _narrow(page: Page) -> None:
    page.set_viewport_size({"width": 600, "height": 900})
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")


def main(folder: str) -> None:
    """Write `KIND.png` for each, and some of them with guidelines, dark, or narrow."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    server = Server(Path(tempfile.mkdtemp()))
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
            page = open_page(browser)
            lab = Lab(page, server).open(server.notebook("pass"))
            for kind in CALLS:
                widget = lab.switch(server.notebook(cell(kind))).run()
                if kind == "compare":
                    lab.shoot(widget, out / "compare_guidelines.png")
                prepare(kind, widget)
                lab.shoot(widget, out / f"{kind}.png")
            lab.theme("JupyterLab Dark")
            lab.shoot(widget, out / "tamer_pad_dark.png")
            lab.theme("JupyterLab Light")
            _narrow(page)
            lab.shoot(widget, out / "tamer_pad_narrow.png")
            page.set_viewport_size({"width": 1280, "height": 900})
            widget = lab.switch(server.notebook(cell("compare")), theme="JupyterLab Dark").run()
            lab.shoot(widget, out / "compare_dark.png")
            lab.switch(server.notebook(cell("compare")))
            _narrow(page)
            lab.shoot(lab.run(), out / "compare_narrow.png")
            widget = lab.switch(server.notebook(cell("probe").replace("i.sqlite", "j.sqlite"))).run()
            prepare("probe", widget)
            lab.shoot(widget, out / "probe_narrow.png")
            page.set_viewport_size({"width": 1280, "height": 900})
            lab.theme("JupyterLab Dark")
            trap(widget)
            lab.shoot(widget, out / "probe_dark.png")
            browser.close()
    finally:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1])
