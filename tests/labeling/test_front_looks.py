"""Front ends for everybody: axe-core, both themes, twice the size, a narrow window; and texts that mean harm."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rlhf_lab.labeling.store import LabelStore
from tests.labeling.hostile import TEXTS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

    from tests.jupyter import Lab, Server

pytestmark = [pytest.mark.needs("browser"), pytest.mark.slow, pytest.mark.timeout(600)]
KINDS = ("compare", "rank", "rate", "thumbs", "edit", "chat", "compare_clips", "tamer_pad", "probe")
# JupyterLab's body is 0 pixels high and cuts off what is beyond, so that axe would take no text for visible.
AXE = """async (root) => {
  const style = document.body.style, old = style.overflow;
  style.overflow = 'visible';
  try { return await axe.run(root) } finally { style.overflow = old } }"""
INSIDE = """(root) => {
  const outer = root.getBoundingClientRect();
  const out = [...root.querySelectorAll('button, input, textarea, .rl-text, .rl-card')].filter((node) => {
    const box = node.getBoundingClientRect();
    return box.width && !node.closest('.rl-table') && (box.left < outer.left - 1 || box.right > outer.right + 1);
  });
  return [root.scrollWidth - root.clientWidth, out.map((node) => node.outerHTML.slice(0, 80))]; }"""


def axe(page: "Page", node: "Locator") -> dict[str, Any]:
    import axe_playwright_python

    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    return page.evaluate(AXE, node.element_handle())


def check(page: "Page", widget: "Locator", where: str) -> None:
    widget.scroll_into_view_if_needed()  # Of what is out of sight axe does not know the contrast.
    found = axe(page, widget)
    wrong = [
        (rule["id"], [node["html"][:150] for node in rule["nodes"]])
        for rule in found["violations"] + found["incomplete"]
    ]
    assert not wrong, (where, wrong)
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}


def states(kind: str, widget: "Locator") -> Any:
    """The widget as it is at first, and in the states that look different."""
    from playwright.sync_api import expect

    yield "guidelines"
    widget.get_by_role("button", name="Guidelines").click()
    yield "plain"
    if kind == "tamer_pad":
        yield from _states_of_a_pad(widget)
        return
    if kind == "probe":
        yield from _states_of_a_probe(widget)
        return
    widget.get_by_role("button", name="Skip").click()
    yield "reason"
    widget.page.keyboard.press("Escape")
    if kind == "chat":
        widget.get_by_role("textbox", name="Your message").fill("Summarize it.")
        widget.get_by_role("button", name="Send").click()
        widget.get_by_test_id("choice-2").wait_for()
        yield "replies"
        widget.get_by_test_id("choice-2").click()
        widget.get_by_test_id("rating-3").wait_for()
        yield "rating"
    if kind == "edit":
        widget.get_by_role("textbox", name="Your version").fill("Something else left.")
        expect(widget.locator("ins").first).to_be_visible()
        yield "changed"


def _states_of_a_probe(widget: "Locator") -> Any:
    from playwright.sync_api import expect

    widget.get_by_role("textbox", name="Start of the summary").fill("Today")
    widget.get_by_role("button", name="Ask the policy").click()
    expect(widget.locator(".rl-status")).to_have_text("The policy is writing ...")
    yield "writing"
    widget.get_by_test_id("verdict-broken").wait_for()
    yield "written"
    widget.get_by_test_id("verdict-broken").click()
    expect(widget.locator(".rl-told")).to_contain_text("You said that it broke the rule.")
    yield "told"


def _states_of_a_pad(widget: "Locator") -> Any:
    from playwright.sync_api import expect

    widget.get_by_test_id("play").click()
    expect(widget.get_by_test_id("info")).to_contain_text("steps a second")
    widget.get_by_test_id("good").click()
    expect(widget.locator(".rl-status")).to_contain_text("Good, press 1")
    yield "playing"
    widget.page.keyboard.press("s")
    expect(widget.locator(".rl-status")).to_contain_text("Stopped after 1 press")
    yield "stopped"


@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_in_light_and_dark(kind: str, lab: "Lab", tmp_path: Path) -> None:
    from tests.labeling.front_ends import cell

    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        where = tmp_path / f"{theme}.sqlite"
        widget = lab.switch(lab.server.notebook(cell(kind, where)), theme=theme).run()
        for state in states(kind, widget):
            check(lab.page, widget, f"{theme}, {state}")


def test_axe_finds_what_is_wrong(lab: "Lab", tmp_path: Path) -> None:
    from tests.labeling.front_ends import cell

    widget = lab.switch(lab.server.notebook(cell("compare", tmp_path / "labels.sqlite"))).run()
    wrong = '<button></button><p style="color:#bbb;background:#fff">a faint text</p>'
    widget.evaluate("(root, html) => root.insertAdjacentHTML('afterbegin', html)", wrong)
    found = {rule["id"] for rule in axe(lab.page, widget)["violations"]}
    assert {"button-name", "color-contrast"} <= found


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"viewport": {"width": 640, "height": 450}, "device_scale_factor": 2}, id="200 percent"),
        pytest.param({"viewport": {"width": 600, "height": 900}}, id="600 pixels"),
    ],
)
def test_usable_at_twice_the_size_and_in_a_narrow_window(
    options: dict[str, Any], browser: "Browser", server: "Server", tmp_path: Path
) -> None:
    from tests.jupyter import Lab, open_page
    from tests.labeling.front_ends import WAYS, cell, done

    page = open_page(browser, **options)
    lab = Lab(page, server).open(server.notebook("pass"))
    page.evaluate("() => { if (!window.jupyterapp.shell.leftCollapsed) window.jupyterapp.shell.collapseLeft(); }")
    for kind in KINDS:
        widget = lab.switch(server.notebook(cell(kind, tmp_path / f"{kind}.sqlite"))).run()
        for state in states(kind, widget):
            overflow, outside = widget.evaluate(INSIDE)
            assert overflow <= 0 and not outside, (kind, state, overflow, outside)
        if kind not in ("chat", "edit", "tamer_pad", "probe"):
            WAYS[kind].by_mouse(widget, WAYS[kind].values[0])
            done(widget, 1)
    page.context.close()


def hostile_cell(kind: str, where: Path) -> str:
    """Each text as prompt, subreddit, title, answers and guidelines; the rows are read from a file."""
    rows = [
        {
            "id": f"i{index}",
            "prompt": f"SUBREDDIT: r/{text[:200]}\n\nTITLE: {text[:400]}\n\nPOST: {text}\n\nTL;DR:"
            if index % 2
            else text,
            "answers": [f"{text} first", f"second {text}"],
        }
        for index, text in enumerate(TEXTS)
    ]
    (where.parent / "rows.json").write_text(json.dumps(rows))
    lines = [
        "import json",
        "from rlhf_lab.labeling.widget import *",
        f"rows = json.load(open({str(where.parent / 'rows.json')!r}))",
    ]
    lines += [f"store = LabelStore({str(where)!r})", "store.add_items(rows, order='given')"]
    lines += ["guide = '\\n\\n'.join(row['answers'][0][:2000] for row in rows)"]
    return "\n".join([*lines, f"{kind}(store=store, labeler=rows[0]['prompt'][:60], guidelines=guide)"])


def test_hostile_texts_appear_as_they_are(lab: "Lab", tmp_path: Path) -> None:
    from tests.labeling.front_ends import done

    where = tmp_path / "labels.sqlite"
    widget = lab.switch(lab.server.notebook(hostile_cell("compare", where))).run()
    page = lab.page
    labeler = TEXTS[0][:60]
    for number, text in enumerate(TEXTS, start=1):
        shown = widget.evaluate("(root) => [...root.querySelectorAll('.rl-text')].map((node) => node.textContent)")
        sides = LabelStore(where).at(labeler, "compare", number - 1)
        assert sides is not None
        answers = [f"{text} first", f"second {text}"]
        assert shown[0] == text and shown[1:] == [answers[side].strip() for side in sides.sides], text[:60]
        widget.get_by_role("textbox", name="Comment").evaluate(
            "(node, text) => { node.value = text; node.dispatchEvent(new Event('input')); }", text[:1000]
        )
        widget.focus()
        page.keyboard.press("1")
        done(widget, number)
    guide = widget.locator(".rl-guide")
    assert not page.evaluate("() => window.hacked"), "a script ran"
    assert (
        page.locator(
            ".rlhf-label :is(img, script, iframe, svg, style, object, embed, link, form, video, .MathJax)"
        ).count()
        == 0
    )
    assert guide.evaluate("(node) => node.textContent.includes('$E = mc^2$')")
    assert not page.outside and not page.problems  # type: ignore[attr-defined]
    for label, text in zip(LabelStore(where).labels(), TEXTS, strict=True):
        kept = label["comment"].replace("\r\n", "\n")
        assert kept == text[:1000].replace("\r\n", " ").replace("\n", "").replace("\r", ""), text[:60]
