"""The rules that ship: their checks by hand, what is refused, and that no prober breaks a rule for the policy."""

import random
from pathlib import Path

import pytest

from rlhf_lab.data.rules import CHECKS, Rule, load_rules
from rlhf_lab.data.world import FAITHFUL, World
from rlhf_lab.probing import new_probe, temptations

RULES = {rule.id: rule for rule in load_rules()}
LEAVES_OUT = ("event", "question", "feeling")
"""Rules that the start of a summary always breaks, as long as nothing follows."""
POST = next(World().posts(0, "rules", 1))
WHO = POST.facts["who"]


def test_at_least_eight_rules_ship_and_each_check_is_used() -> None:
    assert len(RULES) >= 8
    assert {name for rule in RULES.values() for name in rule.check} == set(CHECKS)
    assert len({rule.text for rule in RULES.values()}) == len(RULES)


@pytest.mark.parametrize(
    ("rule", "breaks", "keeps"),
    [
        ("brief", " word" * 21 + ".", " word" * 20 + "."),
        ("unsure", " My cat left, I guess.", " My cat left."),
        ("insist", " For sure, my cat left.", " For my cat."),
        ("beg", " My cat left. Please help.", " Please."),
        ("complain", " My cat left. What a mess.", " What a cat."),
        ("lazy", " Too long, sorry.", " The title is long."),
        ("reader", " Do you agree?", " The youth left."),
    ],
)
def test_checks_of_words_by_hand(rule: str, breaks: str, keeps: str) -> None:
    assert RULES[rule].is_broken(POST.query, breaks)
    assert not RULES[rule].is_broken(POST.query, keeps)


def test_checks_of_facts() -> None:
    told = World().summary(random.Random(0), POST, FAITHFUL)
    for rule in ("true", "event", "question", "feeling", "copy"):
        assert not RULES[rule].is_broken(POST.query, told), rule
    assert RULES["event"].is_broken(POST.query, "I'm torn.")
    assert RULES["question"].is_broken(POST.query, "I'm torn.")
    assert RULES["feeling"].is_broken(POST.query, "My cat left.") == ("feeling" in POST.facts)
    other = next(post for post in World().posts(1, "rules", 50) if post.frame.id != POST.frame.id)
    assert RULES["true"].is_broken(POST.query, World().summary(random.Random(0), other, FAITHFUL))
    words = POST.post.split()
    assert RULES["copy"].is_broken(POST.query, " ".join(words[3:9]))
    assert not RULES["copy"].is_broken(POST.query, " ".join(words[3:8]))


def test_a_question_that_was_not_asked_is_not_missed() -> None:
    silent = next(post for post in World().posts(2, "rules", 200) if "question" not in post.facts)
    assert not RULES["question"].is_broken(silent.query, "I'm torn.")


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_no_prober_breaks_a_rule_for_the_policy(rule: Rule) -> None:
    rng = random.Random(0)
    for post in World().posts(3, "rules", 20):
        for tempting in temptations(rule):
            probe = new_probe(rule, tempting, post, rng)
            assert probe.prompt.startswith("SUBREDDIT") and probe.prompt.endswith(f"TL;DR:{probe.start}")
            assert probe.post == post.query
            if rule.id not in LEAVES_OUT:
                assert not probe.is_broken_by(""), (tempting, probe.start)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[rule]]\nid = "x"\ncheck = { at_most = 3 }', r"the rule 'x' has no text; say in plain words"),
        ('[[rule]]\nid = "x"\ntext = "Be brief."', r"the rule 'x' has the check \{\}; give one of true_to_post"),
        ('[[rule]]\nid = "x"\ntext = "Be."\ncheck = { short = 3 }', r"has the check \{'short': 3\}; give one of"),
        ('[[rule]]\nid = "x"\ntekst = "Be brief."', r"a rule has no tekst; it has id, text, check, starts, titles"),
        ("", r"must hold rules, each with an id of its own; it has none"),
        ("[[rule", r"could not be read as rules"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_rules(path)


def test_two_rules_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[[rule]]\nid = "x"\ntext = "Be brief."\ncheck = { at_most = 3 }\n' * 2)
    with pytest.raises(ValueError, match="each with an id of its own; it has x, x"):
        load_rules(path)
