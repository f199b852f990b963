"""Probing in JupyterLab and Chromium, by keys alone, through to rows that train a rule model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rlhf_lab.labeling.learning import rule_rows
from rlhf_lab.labeling.store import LabelStore
from rlhf_lab.models import load_base
from rlhf_lab.training.rule_model import rule_model_config, train_rule_model
from tests.labeling.test_front_ends import by_keyboard_alone
from tests.labeling.test_front_looks import INSIDE

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from tests.jupyter import Lab

pytestmark = [pytest.mark.alone, pytest.mark.needs("browser"), pytest.mark.slow, pytest.mark.timeout(300)]
POST = "SUBREDDIT: r/pets\n\nTITLE: {}\n\nPOST: {}\n\nTL;DR:"


def counts(widget: "Locator", text: str) -> None:
    from playwright.sync_api import expect

    expect(widget.locator(".rl-count")).to_contain_text(text)


def ask(widget: "Locator") -> None:
    from playwright.sync_api import expect

    widget.page.keyboard.press("Control+Enter")
    expect(widget.locator(".rl-status")).to_have_text("The policy is writing ...")
    expect(widget.locator(".rl-status")).to_contain_text("Did it break the rule? The policy wrote:")


def write(widget: "Locator", key: str, text: str) -> None:
    """Replace what is in the field that `key` leads to."""
    keyboard = widget.page.keyboard
    for name in ("Escape", key, "Control+a"):
        keyboard.press(name)
    keyboard.type(text)


def scrolls_by_keys(widget: "Locator") -> None:
    """The guidelines, to which Tab leads; when they close, the keys go on."""
    page, guide = widget.page, widget.locator(".rl-guide")
    for _ in range(8):
        if guide.evaluate("(node) => node === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("End")
    page.wait_for_function("(node) => node.scrollTop > 0", arg=guide.element_handle())
    page.keyboard.press("?")


def test_a_rule_is_probed_by_keys_alone(lab: "Lab", tmp_path: Path) -> None:
    from playwright.sync_api import expect

    from tests.labeling.front_ends import cell

    where = tmp_path / "labels.sqlite"
    widget = lab.switch(lab.server.notebook(cell("probe", where))).run()
    press = lab.page.keyboard.press
    by_keyboard_alone(lab)
    scrolls_by_keys(widget)
    write(widget, "w", "Today")
    ask(widget)
    expect(widget.locator(".rl-answer .rl-text")).to_have_text("Today the cat left.")
    press("1")
    counts(widget, "1 try, 1 broke a rule")
    write(widget, "e", "My dog left.")
    write(widget, "t", "2 s r p")
    ask(widget)  # The start is still there.
    press("2")
    counts(widget, "2 tries, 1 broke a rule")
    press("p")
    expect(widget.get_by_role("textbox", name="Post", exact=True)).to_have_value("My cat 1 left.")
    press("r")
    expect(widget.get_by_role("group", name="Rule")).to_contain_text("Do not name a dog.")
    ask(widget)
    widget = lab.run()  # The answer that waited for its verdict still does.
    by_keyboard_alone(lab)
    press("3")
    counts(widget, "3 tries, 1 broke a rule")
    widget.evaluate("(root) => { root.style.width = '320px'; }")
    assert widget.evaluate(INSIDE) == [0, []]
    assert not lab.page.problems  # type: ignore[attr-defined]
    check_labels(LabelStore(where).labels())


def check_labels(labels: list[dict[str, Any]]) -> None:
    """They are what was done, and a rule model learns from them."""
    assert [label["value"]["verdict"] for label in labels] == ["broken", "kept", "cannot_tell"]
    assert all(0 < label["seconds"] < 60 for label in labels)
    cat = {"rule": "Do not name a cat.", "rule_id": "cat"}
    begun = {"prompt": POST.format("My cat", "My cat 0 left.") + " Today", "response": " the cat left."}
    edited = {"prompt": POST.format("2 s r p", "My dog left.") + " Today", "response": " somebody left."}
    rows = rule_rows(labels)
    assert rows.to_list() == [begun | cat | {"violated": True}, edited | cat | {"violated": False}]
    model = train_rule_model(load_base("tiny"), rows, rule_model_config("tiny"), batch_size=2, num_epochs=1.0)
    assert len(model.history) == 1
