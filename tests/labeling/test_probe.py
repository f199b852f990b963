"""Tries to break a rule: what a page is told, what its messages do to the store, and the rows that come of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.data.rules import Rule, load_rules
from rlhf_lab.data.world import World
from rlhf_lab.labeling.items import Item
from rlhf_lab.labeling.learning import rule_rows
from rlhf_lab.labeling.markdown import default_guidelines, parse
from rlhf_lab.labeling.people import simulated_people
from rlhf_lab.labeling.probe import ProbeSession, probe
from rlhf_lab.labeling.report import agreement_report
from rlhf_lab.labeling.schema import StoreBusyError, StoreError
from rlhf_lab.labeling.store import LabelStore
from rlhf_lab.records import Prompt

PETS = Prompt(subreddit="pets", title="My cat", post="It left me.")
QUERY = "SUBREDDIT: r/pets\n\nTITLE: {}\n\nPOST: {}\n\nTL;DR:"
OWN = {"cat": "Do not name a cat.", "dog": "Do not name a dog."}


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels.sqlite")


def session(store: LabelStore, answer: Any = lambda prompt: " My cat left.", **options: Any) -> ProbeSession:
    made = probe(answer, store=store, labeler="ana", **({"rules": OWN, "posts": [PETS, "Why?"]} | options)).session
    assert isinstance(made, ProbeSession)
    return made


def ask(session: ProbeSession, uid: str, **others: Any) -> dict[str, Any]:
    """Ask as the page would, about what it shows."""
    shown = session.screen()["current"]
    fields = {"title": shown["post"].get("title", ""), "text": shown["post"]["text"], "start": "", "seconds": 2.0}
    message = {"action": "ask", "uid": uid, "rule": shown["rule"]["id"], "post": shown.get("number", 0)}
    return session.handle(message | fields | others)


def judge(session: ProbeSession, verdict: str, uid: str) -> dict[str, Any]:
    number = session.screen()["current"]["assignment"]
    message = {"action": "answer", "assignment": number, "value": {"verdict": verdict}, "uid": uid, "seconds": 1.5}
    return session.handle(message)


def attempt(session: ProbeSession, verdict: str, uid: str, **others: Any) -> dict[str, Any]:
    """One try, to its verdict; the screen after it."""
    for reply in (ask(session, f"{uid}/ask", **others), judge(session, verdict, f"{uid}/judge")):
        assert reply["ok"], reply
    return reply["screen"]


def test_the_policy_reads_the_edited_post_and_goes_on_from_the_start(store: LabelStore) -> None:
    read: list[str] = []
    asked = session(store, lambda prompt: read.append(prompt) or "self left.")
    reply = ask(asked, "a", title="My dog", text="It  stayed.", start=" It it ")
    assert read == [QUERY.format("My dog", "It  stayed.") + " It it"]
    shown = reply["screen"]["current"]
    assert (shown["start"], shown["answers"], shown["status"]) == (" It it", ["self left."], "open")
    assert shown["post"] == {"subreddit": "pets", "title": "My dog", "text": "It  stayed."}
    assert asked.screen() == session(store).screen()  # Another kernel finds the answer, and asks for none.
    judge(asked, "broken", "b")
    (label,) = store.labels("probe")
    assert label["prompt"] == read[0] and label["answers"] == ["self left."] and label["value"] == {"verdict": "broken"}
    assert (label["labeler"], label["seconds"], label["interface"]) == ("ana", 3.5, "widget probe 1")
    assert label["info"]["rule"] == OWN["cat"] and label["info"]["check"] is None


def test_rules_and_posts_go_round_and_tries_are_counted(store: LabelStore) -> None:
    asked = session(store)
    attempt(asked, "broken", "0")
    screen = attempt(asked, "kept", "1")
    assert screen["progress"] == {"answered": 2, "skipped": 0, "total": 2, "seconds": 7.0, "broken": 1}
    seen = []
    for number in range(2):
        screen = asked.handle({"action": "turn", "to": "rule", "uid": f"r{number}"})["screen"]
        seen.append({name: screen["current"]["rule"][name] for name in ("id", "number", "of", "tries", "broken")})
    assert seen == [
        {"id": "dog", "number": 2, "of": 2, "tries": 0, "broken": 0},
        {"id": "cat", "number": 1, "of": 2, "tries": 2, "broken": 1},
    ]
    texts = [
        asked.handle({"action": "turn", "to": "post", "uid": f"p{n}"})["screen"]["current"]["post"] for n in (0, 1)
    ]
    assert texts == [{"text": "Why?"}, {"subreddit": "pets", "title": "My cat", "text": "It left me."}]
    asked.handle({"action": "turn", "to": "rule", "uid": "r2"})
    asked.handle({"action": "turn", "to": "post", "uid": "p2"})
    attempt(asked, "cannot_tell", "2")
    again = session(store).screen()  # The cell runs again.
    assert again["current"]["rule"]["id"] == "dog" and again["current"]["post"] == {"text": "Why?"}
    assert again["progress"]["answered"] == 3
    assert store.labels("probe")[-1]["prompt"] == "Why?"


def test_rows_leave_out_what_could_not_be_told(store: LabelStore) -> None:
    asked = session(store)
    for uid, verdict in enumerate(("broken", "cannot_tell", "kept")):
        attempt(asked, verdict, str(uid))
    row = {"prompt": PETS.query, "response": " My cat left.", "rule": OWN["cat"], "rule_id": "cat"}
    rows = rule_rows(store.labels())
    assert rows.to_list() == [row | {"violated": True}, row | {"violated": False}]
    assert rule_rows([]).column_names == rows.column_names and len(store.labels("probe")) == 3
    with pytest.raises(StoreError, match="no labeler 'bob'"):
        rule_rows(store.labels(), labeler="bob")


def test_rows_have_the_columns_of_simulated_raters_and_train_the_rule_model(
    store: LabelStore, one_thread: None
) -> None:
    from rlhf_lab.generation import SamplingConfig
    from rlhf_lab.models import load_base
    from rlhf_lab.probing import probes, rule_labels
    from rlhf_lab.training.rule_model import rule_model_config, train_rule_model

    policy = load_base("tiny")
    sampling = SamplingConfig(max_response_tokens=6, temperature=1.0)
    asked = session(store, policy, rules=None, posts=None, sampling=sampling)
    answers = set()
    for uid, verdict in enumerate(("broken", "kept", "kept", "kept")):
        if uid == 3:  # The cell runs again.
            asked = session(store, policy, rules=None, posts=None, sampling=sampling)
        attempt(asked, verdict, str(uid), start="Has")
    for label in store.labels("probe"):
        assert label["prompt"].endswith("TL;DR: Has")
        answers.add(label["answers"][0])
    assert len(answers) == 4  # Each try draws another answer.
    rows = rule_rows(store.labels())
    rules = load_rules()
    simulated = rule_labels(probes(rules, list(World().posts(0, "p", 1)), seed=0), [" A."], rules, num_rules=2, seed=0)
    assert rows.features == simulated.features
    model = train_rule_model(policy, rows, rule_model_config("tiny"), batch_size=4, num_epochs=1.0)
    assert len(model.history) == 1 and model.history[0]["rule/loss"] > 0


@pytest.mark.parametrize(
    ("changes", "check"),
    [({}, True), ({"title": "Another"}, True), ({"start": "Thanks,"}, True), ({"text": "Another."}, None)],
)
def test_the_exact_check_is_told_after_the_verdict_where_it_applies(
    changes: dict[str, str], check: bool | None, store: LabelStore
) -> None:
    asked = session(store, lambda prompt: " please help.", rules=["beg"], posts=list(World().posts(0, "x", 1)))
    reply = ask(asked, "a", **changes)
    assert "check" not in json.dumps(reply)
    assert judge(asked, "kept", "b")["screen"]["current"]["told"]["check"] is check
    assert asked.handle({"action": "turn", "to": "rule", "uid": "c"})["screen"]["current"]["told"] is None
    assert store.labels("probe")[0]["info"]["check"] is check


def test_a_check_that_finds_nothing_says_that_the_rule_was_kept(store: LabelStore) -> None:
    asked = session(store, lambda prompt: " It left.", rules=["beg"], posts=list(World().posts(0, "x", 1)))
    told = attempt(asked, "broken", "0", start="Well,")["current"]["told"]
    assert told == {"verdict": "broken", "check": False, "summary": "Well, It left."}


def test_what_is_sent_twice_is_asked_and_kept_once(store: LabelStore) -> None:
    drawn: list[str] = []
    asked = session(store, lambda prompt: drawn.append(prompt) or f" Answer {len(drawn)}.")
    for _ in range(2):
        assert ask(asked, "a")["screen"]["current"]["answers"] == [" Answer 1."]
    number = asked.screen()["current"]["assignment"]
    for _ in range(2):
        said = {"action": "answer", "assignment": number, "value": {"verdict": "kept"}, "uid": "b"}
        assert asked.handle(said)["screen"]["progress"]["answered"] == 1
    assert len(drawn) == 1 and len(store.labels("probe")) == 1


def test_an_answer_that_could_not_be_stored_is_not_drawn_again(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    asked = session(store, lambda prompt: drawn.append(prompt) or f" Answer {len(drawn)}.")

    def full(*_: Any, **__: Any) -> None:
        raise StoreBusyError("the disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(store, "record", full)
        reply = ask(asked, "a")
        assert (reply["retry"], reply["error"]) == (True, "the disk is full.")
    assert asked.screen()["current"]["assignment"] is None
    assert ask(asked, "a")["screen"]["current"]["answers"] == [" Answer 1."]


def test_undo_takes_back_the_verdict_and_then_the_try(store: LabelStore) -> None:
    asked = session(store)
    attempt(asked, "broken", "0")
    attempt(asked, "kept", "1")
    seen = []
    for uid in range(4):
        screen = asked.handle({"action": "undo", "uid": f"u{uid}"})["screen"]
        seen.append((screen["progress"]["answered"], screen["current"]["assignment"] is not None))
    assert seen == [(1, True), (1, False), (0, True), (0, False)]
    screen = asked.screen()
    assert not screen["can_undo"] and not screen["can_back"]
    assert rule_rows(store.labels()).num_rows == 0
    attempt(asked, "broken", "2")
    assert [row["violated"] for row in rule_rows(store.labels()).to_list()] == [True]


def test_an_earlier_verdict_can_be_changed(store: LabelStore) -> None:
    asked = session(store)
    for uid in range(3):
        attempt(asked, "broken", str(uid))
        if uid == 1:
            for name in "vu":  # The second is taken back altogether.
                asked.handle({"action": "undo", "uid": name})
    for name in "bc":
        place = asked.screen()["current"]["place"]
        asked.handle({"action": "show", "place": place - 1, "uid": name})
    shown = asked.screen()["current"]
    assert (shown["place"], shown["value"]) == (0, {"verdict": "broken"})
    assert judge(asked, "kept", "d")["screen"]["current"]["assignment"] is None
    assert [row["violated"] for row in rule_rows(store.labels()).to_list()] == [True, False]
    asked.handle({"action": "show", "place": 0, "uid": "e"})
    assert asked.handle({"action": "show", "place": -1, "uid": "f"})["screen"]["current"]["assignment"] is None


def test_a_try_that_is_skipped_is_no_try_and_gives_no_row(store: LabelStore) -> None:
    asked = session(store)
    ask(asked, "a")
    skipped = {"action": "skip", "assignment": asked.screen()["current"]["assignment"], "value": {"reason": "private"}}
    screen = asked.handle(skipped | {"uid": "b"})["screen"]
    assert screen["current"]["rule"]["tries"] == screen["progress"]["answered"] == 0
    assert screen["progress"]["skipped"] == 1 and rule_rows(store.labels()).num_rows == 0


def test_two_probers_do_not_see_each_others_tries(store: LabelStore) -> None:
    ask(session(store), "a")
    bobs = probe(lambda prompt: " No.", rules=OWN, posts=[PETS], store=store, labeler="bob").session
    assert bobs.screen()["current"]["assignment"] is None and not bobs.screen()["can_undo"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rules": {"cat": " "}}, "the rule 'cat' has no text; say in plain words what it asks"),
        ({"rules": ["brif"]}, "there is no rule 'brif'; did you mean 'brief'"),
        ({"rules": ["xyz"]}, "there is no rule 'xyz'; there are true, event"),
        ({"rules": []}, "there are no rules to break; give some, or leave"),
        ({"posts": []}, "there are no posts to try with; give some, or leave"),
        ({"posts": [PETS, " "]}, "post 1 has no text; fill it in, or leave it out"),
        ({"posts": [QUERY.format("A", " ")]}, "post 0 has no text"),
        ({"posts": [7]}, "a post is a Prompt, a text or a row with a `prompt`; post 0 is 7"),
    ],
)
def test_bad_calls_are_refused(options: dict[str, Any], says: str, store: LabelStore) -> None:
    with pytest.raises(StoreError, match=says):
        session(store, **options)


def test_what_cannot_be_asked_or_kept_is_refused(store: LabelStore) -> None:
    with pytest.raises(StoreError, match="probe takes a policy, or a function from a prompt to what follows it, not 3"):
        session(store, 3)
    with pytest.raises(StoreError, match=r"about a rule, by lab\.probe: 'Post' has none\."):
        Item(prompt="Post", answers=("A",), kind="probe")
    with pytest.raises(StoreError, match="do not watch, or try things out, as probe asks"):
        simulated_people(store, "probe")
    with pytest.raises(ValueError, match="the rule 'x' has no text"):
        Rule(id="x", text="", check={"at_most": 3})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"text": " \n"}, "the post is empty; write one, or take another."),
        ({"rule": "bird"}, "there is no rule 'bird'; there are cat, dog."),
        ({"post": 9}, "there is no post 9; run the cell again."),
        ({"start": "\0"}, "NUL character"),
    ],
)
def test_a_bad_try_is_one_sentence_and_nothing_is_kept(changes: dict[str, Any], says: str, store: LabelStore) -> None:
    reply = ask(session(store), "a", **changes)
    assert not reply["ok"] and not reply["retry"] and says in reply["error"]
    assert reply["screen"]["current"]["assignment"] is None and not store.item_ids("probe")


def test_a_policy_that_writes_nothing_or_fails_says_so(store: LabelStore) -> None:
    reply = ask(session(store, lambda prompt: " \n"), "a")
    assert reply["error"].startswith("the policy wrote nothing; change the post or the start of the summary")

    def fails(prompt: str) -> str:
        raise RuntimeError("out of memory")

    assert "out of memory" in ask(session(store, fails), "b")["error"]


def test_a_second_page_waits_for_the_verdict(store: LabelStore) -> None:
    asked = session(store)
    ask(asked, "a")
    reply = ask(asked, "b", rule="cat", post=0)
    assert not reply["ok"] and "still waits for your verdict" in reply["error"]
    assert "is no answer to an item of kind probe" in judge(asked, "perhaps", "c")["error"]


def test_the_report_counts_tries(store: LabelStore) -> None:
    asked = session(store)
    attempt(asked, "broken", "0")
    assert agreement_report(store).statistics["counts"]["probe"] == 1


def test_guidelines_ship_with_an_example() -> None:
    text = default_guidelines("probe")
    assert len(text.split()) > 60 and parse(text) and "Example" in text
