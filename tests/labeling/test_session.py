"""What a page is told and what its messages do, without a browser."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.labeling.markdown import default_guidelines, parse
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.labeling.session import Options, Session
from rlhf_lab.labeling.store import LabelStore
from rlhf_lab.labeling.widget import LabelWidget, chat, compare, compare_clips, edit, rank, rate, thumbs
from tests.labeling.front_ends import KINDS, WAYS, clips, rows

SECRETS = ("secret policy", "secret info", "gold")


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels.sqlite")


def widget(kind: str, store: LabelStore, **options: Any) -> LabelWidget:
    if kind == "chat":
        return chat(lambda messages: f"reply to {messages[-1]['content']}", store=store, labeler="ana", **options)
    if kind == "compare_clips":
        return compare_clips(clips(6), store=store, labeler="ana", **options)
    made = []
    for row in rows(kind, 6):
        sources = [f"secret policy {place}" for place in range(len(row["answers"]))]
        made.append(row | {"sources": sources, "info": {"note": "secret info"}, "gold": 0})
    make = {"compare": compare, "rank": rank, "rate": rate, "thumbs": thumbs, "edit": edit}[kind]
    return make(made, store=store, labeler="ana", **options)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_never_told_who_wrote_what(kind: str, store: LabelStore) -> None:
    shown = widget(kind, store)
    session = shown.session
    told = [shown.get_state()]
    for number, value in enumerate(WAYS[kind].values):
        current = session.screen()["current"]
        if kind == "chat":
            say = {"action": "say", "assignment": current["assignment"], "text": "hi", "uid": f"s{number}"}
            told.append(session.handle(say))
            choose = {
                "action": "step",
                "assignment": current["assignment"],
                "value": {"chosen": 1},
                "uid": f"c{number}",
            }
            told.append(session.handle(choose))
        message = {"action": "answer", "assignment": current["assignment"], "value": value, "uid": f"a{number}"}
        told.append(session.handle(message))
        assert told[-1]["ok"], told[-1]
    told.append(session.handle({"action": "undo", "uid": "u"}))
    told.append(session.handle({"action": "show", "place": 0, "uid": "b"}))
    text = json.dumps([{name: value for name, value in one.items() if not name.startswith("_")} for one in told])
    assert not [secret for secret in SECRETS if secret in text]
    sides = {tuple(label["sides"]) for label in store.labels()}
    assert kind not in ("compare", "rank", "compare_clips") or len(sides) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_that_sends_twice_is_answered_twice_and_kept_once(kind: str, store: LabelStore) -> None:
    session = widget(kind, store).session
    current = session.screen()["current"]
    message = {"action": "answer", "assignment": current["assignment"], "value": WAYS[kind].values[0], "uid": "one"}
    if kind == "chat":
        for say in 2 * [{"action": "say", "assignment": current["assignment"], "text": "hi", "uid": "s"}]:
            assert session.handle(say)["ok"]
        for choose in 2 * [{"action": "step", "assignment": current["assignment"], "value": {"chosen": 0}, "uid": "c"}]:
            assert session.handle(choose)["ok"]
    assert [session.handle(message)["ok"] for _ in range(2)] == [True, True]
    (label,) = store.labels()
    assert label["kind"] == kind and len(label["steps"]) == (2 if kind == "chat" else 0)


def test_the_post_is_not_even_sent_before_the_interpretation(store: LabelStore) -> None:
    session = widget("compare", store, naive_interpretation=True).session
    current = session.screen()["current"]
    assert "post" not in current and current["is_hidden"]
    value = {"interpretation": ["I see A", "I see B"]}
    reply = session.handle({"action": "step", "assignment": current["assignment"], "value": value, "uid": "i"})
    assert reply["screen"]["current"]["post"]["title"].startswith("Post ")


def test_a_reply_is_chosen_by_where_it_was_shown(store: LabelStore) -> None:
    session = chat({"x": lambda messages: "from x", "y": lambda messages: "from y"}, store=store).session
    seen = set()
    for turn in range(12):
        current = session.screen()["current"]
        session.handle({"action": "say", "assignment": current["assignment"], "text": "hi", "uid": f"s{turn}"})
        offer = session.screen()["current"]["offer"]["replies"]
        seen.add(tuple(offer))
        session.handle(
            {"action": "step", "assignment": current["assignment"], "value": {"chosen": 1}, "uid": f"c{turn}"}
        )
        assert session.screen()["current"]["messages"][-1]["content"] == offer[1]
    assert seen == {("from x", "from y"), ("from y", "from x")}
    steps = [step for step in session.store.at("me", "chat", 0).steps if "chosen" in step]  # type: ignore[union-attr]
    assert [step["sources"] for step in steps] == 12 * [["x", "y"]] and [step["turn"] for step in steps] == [
        *range(1, 13)
    ]


def test_a_policy_that_fails_says_why(store: LabelStore) -> None:
    def respond(messages: list[dict[str, str]]) -> str:
        raise RuntimeError("out of memory")

    session = chat(respond, store=store).session
    message = {"action": "say", "assignment": session.screen()["current"]["assignment"], "text": "hi", "uid": "s"}
    reply = session.handle(message)
    assert not reply["ok"] and not reply["retry"] and "out of memory" in reply["error"] and reply["screen"]["current"]


def test_bad_calls_are_refused(store: LabelStore) -> None:
    with pytest.raises(StoreError, match="has no items to compare yet"):
        compare(store=store)
    with pytest.raises(StoreError, match="scale is 8"):
        compare(rows("compare", 1), store=store, scale=7)
    with pytest.raises(StoreError, match="limit is a number"):
        rank(rows("rank", 1), store=store, limit=0)
    with pytest.raises(StoreError, match="one or two ways to respond"):
        chat({}, store=store)
    store.add_labelers(["bob"], closed=True)
    with pytest.raises(StoreError, match="no labeler 'me'"):
        compare(rows("compare", 1), store=store)
    with pytest.raises(StoreError, match="no labeler 'me'"):
        chat(lambda messages: "", store=store)


def test_a_limit_is_a_limit(store: LabelStore) -> None:
    session = Session(widget("compare", store).store, "bob", "compare", Options(limit=2))
    for number in range(2):
        current = session.screen()["current"]
        session.handle(
            {"action": "answer", "assignment": current["assignment"], "value": {"choice": "tie"}, "uid": f"{number}"}
        )
    assert session.screen()["current"] is None and session.screen()["progress"]["total"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_guidelines_ship_with_examples(kind: str) -> None:
    text = default_guidelines(kind)
    assert len(text.split()) > 60 and parse(text)
    assert kind == "chat" or "Example" in text


def test_markdown_is_a_tree_of_known_elements() -> None:
    hostile = (
        '<b onclick="x">b</b> [l](javascript:x) [ok](https://a.b/?q="x") ![i](http://a/b.png)\n\n<script>x</script>'
    )
    tree = parse(hostile)
    links = [node for node in _nodes(tree) if node["tag"] == "a"]
    assert [link["href"] for link in links] == ["https://a.b/?q=%22x%22", "http://a/b.png"]
    assert {node["tag"] for node in _nodes(tree)} == {"p", "a"}
    assert "<script>x</script>" in json.dumps(tree) and '<b onclick=\\"x\\">' in json.dumps(tree)


def _nodes(tree: Any) -> list[dict[str, Any]]:
    return [one for node in tree if isinstance(node, dict) for one in (node, *_nodes(node["children"]))]
