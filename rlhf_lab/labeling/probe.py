"""Adversarial probing by a person, who tries to make a policy break a rule and says of each answer whether it did.

A try is an item of its own: what the policy read and wrote, and the rule that was meant. It is in the store before the
page shows the answer, and its verdict before anything else happens. `learning.rule_rows` reads them for a rule model.

Reference: Glaese et al. 2022 (Sparrow), arXiv:2209.14375.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lab.data.rules import Rule, load_rules
from rlhf_lab.data.world import World, WorldPost
from rlhf_lab.labeling.items import Assignment, Item
from rlhf_lab.labeling.markdown import default_guidelines
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.labeling.session import Options, Session, post_parts
from rlhf_lab.labeling.store import LabelStore
from rlhf_lab.labeling.widget import LabelWidget
from rlhf_lab.records import QUERY_TEMPLATE, Prompt

if TYPE_CHECKING:
    from rlhf_lab.generation import SamplingConfig
    from rlhf_lab.models import Policy

KIND = "probe"
Answer = Callable[[str], str]
"""From a prompt, which may hold the start of the answer, to what follows it."""
Rules = Sequence[Rule | str] | Mapping[str, str]
"""Rules, or ids of those that ship; or texts by ids, of rules that nothing can check."""


class ProbeSession(Session):
    """One prober and one policy: the rule and the post at hand, and the tries so far."""

    def __init__(self, answer: Answer, rules: Rules, posts: Iterable[Any], store: LabelStore, labeler: str) -> None:
        """Let the prober in, at the rule and the post of their last try."""
        self.rules = _rules(rules)
        self.posts = _posts(posts)
        super().__init__(store, labeler, KIND, Options(comment=False))
        self.answer = answer
        steps = [step for one in self._tries() for step in one.steps]
        last = steps[-1] if steps else {}
        self._rule = last["rule"] if last.get("rule") in self.rules else next(iter(self.rules))
        self._post = last.get("post", 0) % len(self.posts)
        self._told: int | None = None  # The try whose verdict has just been given.
        self._drawn: tuple[str, Item] | None = None

    def _tries(self) -> list[Assignment]:
        """Those that were not taken back."""
        return [one for one in self.store.given(self.labeler, KIND) if one.steps]

    def screen(self) -> dict[str, Any]:
        """The try that waits for its verdict, or one that was called back, or what the next try needs."""
        with self._guard:
            tries = self._tries()
            current = next((one for one in tries if one.status == "open"), None)
            current = next((one for one in tries if one.place == self._place), current)
            place = 1 + max((one.place for one in tries if one.status != "open"), default=-1)
            progress = self.store.progress(self.labeler, KIND)
            return {
                "current": self._view(current) if current else {**self._start(tries), "place": place},
                "next": None,
                "is_earlier": self._place is not None,
                "can_back": place > 0,
                "can_undo": bool(tries),
                "progress": {
                    "answered": progress.answered,
                    "skipped": progress.skipped,
                    "total": len(tries),
                    "seconds": progress.seconds,
                    "broken": sum(map(_is_broken, tries)),
                },
            }

    def _act(self, action: str, message: dict[str, Any], uid: str) -> None:
        if action == "ask":
            self._ask(message, uid)
        elif action == "turn":
            self._turn(message)
        else:
            super()._act(action, message, uid)
        self._told = int(message["assignment"]) if action == "answer" else None

    def _turn(self, message: dict[str, Any]) -> None:
        """To another rule or another post; both go round."""
        if message.get("to") == "rule":
            ids = list(self.rules)
            self._rule = ids[(ids.index(self._rule) + 1) % len(ids)]
        else:
            self._post = (self._post + 1) % len(self.posts)

    def _ask(self, message: dict[str, Any], uid: str) -> None:
        """Have the policy answer, and keep the answer, so that it is not drawn twice."""
        if any(one.status == "open" for one in self._tries()):
            raise StoreError("the last answer still waits for your verdict; give it first.")
        if self._drawn is None or self._drawn[0] != uid:
            self._drawn = uid, self._new_try(message, uid)
        item = self._drawn[1]
        self.store.add_items([item], KIND, order="given")
        self.store.assign(self.labeler, [item.id])
        mine = next(one for one in self.store.given(self.labeler, KIND) if one.item.id == item.id)
        asked = {"rule": self._rule, "post": self._post}
        known = {"uid": uid, "interface": self.interface, "seconds": float(message.get("seconds", 0.0))}
        self.store.record(mine, asked, event="step", **known)

    def _new_try(self, message: dict[str, Any], uid: str) -> Item:
        rule, number = _known(str(message.get("rule")), self.rules), int(message["post"])
        if number not in range(len(self.posts)):
            raise StoreError(f"there is no post {number}; run the cell again.")
        self._rule, self._post = rule, number
        parts, world = self.posts[number]
        text, start = str(message["text"]), str(message.get("start", "")).strip()
        if not text.strip():
            raise StoreError("the post is empty; write one, or take another.")
        post = _query({**parts, "title": str(message.get("title", "")), "text": text})
        start = f" {start}" if start else ""
        response = self.answer(post + start)
        if not isinstance(response, str) or not response.strip():
            raise StoreError("the policy wrote nothing; change the post or the start of the summary, and ask again.")
        info: dict[str, Any] = {"rule": _text(self.rules[rule]), "rule_id": rule, "post": post, "start": start}
        info["check"] = _check(self.rules[rule], world if text == parts["text"] else None, start + response)
        return Item(id=f"{self.labeler}/{KIND}/{uid}", kind=KIND, prompt=post + start, answers=(response,), info=info)

    def _start(self, tries: Sequence[Assignment]) -> dict[str, Any]:
        """What the next try needs: the rule, the post, and what became of the last try."""
        told = next((_told(one) for one in tries if one.id == self._told), None)
        known = {"assignment": None, "status": "open", "comment": "", "value": None, "told": told}
        post = {"post": self.posts[self._post][0], "number": self._post, "num_posts": len(self.posts)}
        return known | post | {"rule": self._rule_view(self._rule, _text(self.rules[self._rule]), tries)}

    def _view(self, assignment: Assignment) -> dict[str, Any]:
        info = assignment.item.info
        rule = self._rule_view(info["rule_id"], info["rule"], self._tries())
        texts = {"answers": list(assignment.item.answers), "post": post_parts(info["post"]), "start": info["start"]}
        return super()._view(assignment) | texts | {"rule": rule}

    def _rule_view(self, name: str, text: str, tries: Sequence[Assignment]) -> dict[str, Any]:
        mine = [one for one in tries if one.item.info["rule_id"] == name and one.status == "answered"]
        ids = list(self.rules)
        return {
            "id": name,
            "text": text,
            "number": ids.index(name) + 1 if name in ids else None,
            "of": len(ids),
            "tries": len(mine),
            "broken": sum(map(_is_broken, mine)),
        }

    def _show(self, place: int) -> None:
        judged = [one.place for one in self._tries() if one.status != "open" and one.place <= place]
        self._place = judged[-1] if judged else None


def probe(
    policy: "Policy | Answer",
    *,
    rules: Rules | None = None,
    posts: Iterable[Any] | None = None,
    store: LabelStore | str | Path = "labels.sqlite",
    labeler: str = "me",
    sampling: "SamplingConfig | None" = None,
    seed: int = 0,
    guidelines: str | None = None,
) -> LabelWidget:
    """Let a person try to make a policy break a rule, and say of each answer whether it did.

    They change the post or begin the summary, so that the policy has to go on from there. Where rule and post are the
    embedded world's, and the post's text is as it was, the page tells what the exact check says, after the verdict.

    Args:
        policy: Who is tried: a policy, or a function from a prompt to what follows it.
        rules: `Rule`s, or ids of those that ship, which are the default; or texts by ids, for rules of one's own that
            no check knows.
        posts: To begin with: `Prompt`s, texts, or rows with a `prompt`; by default 50 of the embedded world.
        store: Where the tries go: a `LabelStore`, a file, or `postgresql://user@host/name`.
        labeler: Who tries.
        sampling: How the policy samples.
        seed: Draws its answers; when the cell runs again, others.
        guidelines: Markdown shown above; by default those that ship.

    Raises:
        StoreError: The store cannot be used, the policy cannot be asked, a rule is unknown or has no text, there are no
            posts, or one is empty.

    Reference:
        Glaese et al. 2022 (Sparrow), arXiv:2209.14375: adversarial probing.
    """
    if not (hasattr(policy, "network") or callable(policy)):
        raise StoreError(f"probe takes a policy, or a function from a prompt to what follows it, not {policy!r:.60}.")
    store = store if isinstance(store, LabelStore) else LabelStore(store)
    posts = World().posts(0, "probed by hand", 50) if posts is None else posts
    rules = load_rules() if rules is None else rules
    way = _way(policy, sampling, seed + store.progress(labeler, KIND).given)
    session = ProbeSession(way, rules, posts, store, labeler)
    return LabelWidget(session, default_guidelines(KIND) if guidelines is None else guidelines)


def _way(policy: Any, sampling: Any, seed: int) -> Answer:
    if not hasattr(policy, "network"):
        return policy
    from rlhf_lab.labeling.talking import answer_with  # Here, as it loads PyTorch, which a function does without.

    return answer_with(policy, sampling, seed=seed)


def _rules(given: Rules) -> dict[str, Rule | str]:
    """The rules by id; a mere text where there is no check.

    Raises:
        StoreError: There are none, one is unknown, or one has no text.
    """
    if isinstance(given, str):
        given = [given]
    if isinstance(given, Mapping):
        found: dict[str, Rule | str] = dict(given)
    else:
        shipped = {rule.id: rule for rule in load_rules()}
        rules = [rule if isinstance(rule, Rule) else shipped[_known(rule, shipped)] for rule in given]
        found = {rule.id: rule for rule in rules}
    if not found:
        raise StoreError("there are no rules to break; give some, or leave `rules` out for those that ship.")
    for name, rule in found.items():
        if not isinstance(_text(rule), str) or not _text(rule).strip():
            raise StoreError(f"the rule {name!r} has no text; say in plain words what it asks.")
    return found


def _known(name: str, rules: Mapping[str, Any]) -> str:
    if name not in rules:
        like = get_close_matches(str(name), rules, n=1)
        hint = f"did you mean {like[0]!r}?" if like else f"there are {', '.join(rules)}."
        raise StoreError(f"there is no rule {name!r}; {hint}")
    return name


def _posts(given: Iterable[Any]) -> list[tuple[dict[str, str], WorldPost | None]]:
    """The parts of each post, and the post itself where its facts are known.

    Raises:
        StoreError: There are none, one is empty, or one is no post.
    """
    found = []
    for number, post in enumerate(given):
        prompt = post.query if isinstance(post, Prompt) else post.get("prompt") if isinstance(post, Mapping) else post
        if not isinstance(prompt, str):
            raise StoreError(f"a post is a Prompt, a text or a row with a `prompt`; post {number} is {post!r:.60}.")
        parts = post_parts(prompt)
        if not parts["text"].strip():
            raise StoreError(f"post {number} has no text; fill it in, or leave it out.")
        found.append((parts, post if isinstance(post, WorldPost) else None))
    if not found:
        raise StoreError("there are no posts to try with; give some, or leave `posts` out for the embedded world's.")
    return found


def _query(parts: Mapping[str, str]) -> str:
    if "subreddit" not in parts:
        return parts["text"]
    return QUERY_TEMPLATE.format(subreddit=parts["subreddit"], title=parts["title"], post=parts["text"])


def _text(rule: Rule | str) -> str:
    return rule.text if isinstance(rule, Rule) else rule


def _check(rule: Rule | str, post: WorldPost | None, summary: str) -> bool | None:
    """Whether the summary breaks the rule, held against the untouched post as in `probing.Probe`; None if unknown."""
    return rule.is_broken(post.query, summary) if isinstance(rule, Rule) and post is not None else None


def _told(one: Assignment) -> dict[str, Any]:
    """What became of a try that was judged."""
    summary = (one.item.info["start"] + one.item.answers[0]).strip()
    return {**(one.value or {}), "check": one.item.info["check"], "summary": summary}


def _is_broken(one: Assignment) -> bool:
    return one.value == {"verdict": "broken"}
