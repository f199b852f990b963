"""Front ends in the notebook: each call returns a widget that asks one labeler and writes to a store.

lab.compare(lab.authored_pairs(), labeler="ana")
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from rlhf_lab.labeling.clips import KIND, QUESTION, Clip, clip_items
from rlhf_lab.labeling.items import FLAGS, Item
from rlhf_lab.labeling.markdown import default_guidelines, parse
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.labeling.session import Options, Respond, Session
from rlhf_lab.labeling.store import LabelStore

if TYPE_CHECKING:
    from rlhf_lab.models import Policy

_FRONT = Path(__file__).parent / "front"
_PARTS = (
    "elements",
    "sending",
    "page",
    "compare",
    "rank",
    "rate",
    "thumbs",
    "edit",
    "chat",
    "clips",
    "probe",
    "pad",
    "main",
)
_TITLES = {
    "compare": "Compare two answers",
    "rank": "Put answers in order",
    "rate": "Rate an answer",
    "thumbs": "Thumbs up or down",
    "edit": "Improve an answer",
    "chat": "Talk to a policy",
    "compare_clips": "Compare two clips",
    "probe": "Try to break a rule",
}


class FrontWidget(anywidget.AnyWidget):
    """A page of a session; `.store` and `.session` are what it writes to and how."""

    _esm = "\n".join((_FRONT / f"{part}.js").read_text(encoding="utf-8") for part in _PARTS)
    _css = (_FRONT / "style.css").read_text(encoding="utf-8")
    setup = traitlets.Dict().tag(sync=True)
    screen = traitlets.Dict().tag(sync=True)

    def __init__(self, session: Any, **shown: Any) -> None:
        """Show the session."""
        super().__init__(**shown)
        self.session, self.store = session, session.store
        self.on_msg(self._on_message)

    def _on_message(self, _: Any, content: Any, buffers: Any) -> None:
        reply = self.session.handle(content if isinstance(content, dict) else {})
        self.send(*(reply if isinstance(reply, tuple) else (reply,)))


class LabelWidget(FrontWidget):
    """A page that asks about items."""

    def __init__(self, session: Session, guidelines: str) -> None:
        """Show the session, under the guidelines."""
        options = session.options
        shown = {
            "scale": options.scale,
            "tie": options.tie,
            "cannot_compare": options.cannot_compare,
            "comment": options.comment,
            "axes": dict(options.axes),
            "flags": list(options.flags),
        }
        title, tree = _TITLES[session.kind], parse(guidelines)
        setup = {"kind": session.kind, "title": title, "options": shown, "guidelines": tree}
        super().__init__(session, setup=setup, screen=session.screen())


def _front(
    kind: str,
    items: Iterable[Any] | None,
    store: LabelStore | str | Path,
    labeler: str,
    guidelines: str | None,
    options: Options,
    respond: Sequence[tuple[str, Respond]] = (),
) -> LabelWidget:
    store = store if isinstance(store, LabelStore) else LabelStore(store)
    if items is not None:
        store.add_items(items, kind)
    if not store.item_ids(kind):
        raise StoreError(f"the store {store.name} has no items to {kind} yet; give some as `items`.")
    session = Session(store, labeler, kind, options, respond)
    return LabelWidget(session, default_guidelines(kind) if guidelines is None else guidelines)


def compare(
    items: Iterable[Any] | None = None,
    *,
    store: LabelStore | str | Path = "labels.sqlite",
    labeler: str = "me",
    scale: int = 8,
    tie: bool = True,
    cannot_compare: bool = True,
    comment: bool = True,
    naive_interpretation: bool = False,
    guidelines: str | None = None,
    limit: int | None = None,
) -> LabelWidget:
    """Ask which of two answers is better, and how much.

    Args:
        items: What to ask about, added to the store if it does not have it: rows of `prompt` with two `answers`, or
            with `chosen` and `rejected`. Without them the store's own items are asked.
        store: Where the labels go: a `LabelStore`, a file, or `postgresql://user@host/name`.
        labeler: Who labels; each gets their own items and sides.
        scale: 8 steps, or 9 with an undecided middle as in Stiennon et al. 2020, arXiv:2009.01325, appendix C.1.
        tie: Offer "equally good".
        cannot_compare: Offer "cannot be compared".
        comment: Offer a comment.
        naive_interpretation: First ask what each answer says, before the post is shown (their appendix C.2).
        guidelines: Markdown shown above the items; by default those that ship.
        limit: Items for this labeler; by default as many as there are.

    Raises:
        StoreError: The store cannot be used, an item cannot be asked, or there are none.
    """
    shown = {"scale": scale, "tie": tie, "cannot_compare": cannot_compare, "naive_interpretation": naive_interpretation}
    options = Options(**shown, comment=comment, limit=limit)
    return _front("compare", items, store, labeler, guidelines, options)


def rank(
    items: Iterable[Any] | None = None,
    *,
    store: LabelStore | str | Path = "labels.sqlite",
    labeler: str = "me",
    comment: bool = True,
    guidelines: str | None = None,
    limit: int | None = None,
) -> LabelWidget:
    """Ask for the order of 2 to 9 answers, ties allowed (Ouyang et al. 2022, arXiv:2203.02155, section 3.4).

    Args and errors as in `compare`; an item has 2 to 9 `answers`.
    """
    return _front("rank", items, store, labeler, guidelines, Options(comment=comment, limit=limit))


def rate(
    items: Iterable[Any] | None = None,
    *,
    store: LabelStore | str | Path = "labels.sqlite",
    labeler: str = "me",
    axes: Mapping[str, str] | None = None,
    flags: Sequence[str] = FLAGS,
    comment: bool = True,
    guidelines: str | None = None,
    limit: int | None = None,
) -> LabelWidget:
    """Ask for grades from 1 to 7 on each axis, and for flags.

    Args and errors as in `compare`; an item has one answer, as `answers` or `completion`. Further:

    Args:
        axes: Names of the axes and the question that defines each; by default overall, accuracy, coverage, coherence.
        flags: What can be flagged; by default after Ouyang et al. 2022, arXiv:2203.02155, table 3.
    """
    options = Options(axes=dict(axes or {}), flags=tuple(flags), comment=comment, limit=limit)
    return _front("rate", items, store, labeler, guidelines, options)


def thumbs(
    items: Iterable[Any] | None = None,
    *,
    store: LabelStore | str | Path = "labels.sqlite",
    labeler: str = "me",
    comment: bool = False,
    guidelines: str | None = None,
    limit: int | None = None,
) -> LabelWidget:
    """Ask for thumbs up or down, and what an ideal answer would have been.

    Args and errors as in `compare`; an item has one answer, as `answers` or `completion`.
    """
    return _front("thumbs", items, store, labeler, guidelines, Options(comment=comment, limit=limit))


def edit(
    items: Iterable[Any] | None = None,
    *,
    store: LabelStore | str | Path = "labels.sqlite",
    labeler: str = "me",
    comment: bool = False,
    guidelines: str | None = None,
    limit: int | None = None,
) -> LabelWidget:
    """Ask for a better version of an answer; the difference is shown and kept as text and as spans.

    Args and errors as in `compare`; an item has one answer, as `answers` or `completion`.
    """
    return _front("edit", items, store, labeler, guidelines, Options(comment=comment, limit=limit))


def chat(
    respond: "Respond | Policy | Mapping[str, Respond | Policy]",
    items: Iterable[Any] | None = None,
    *,
    store: LabelStore | str | Path = "labels.sqlite",
    labeler: str = "me",
    num_conversations: int = 5,
    comment: bool = True,
    guidelines: str | None = None,
) -> LabelWidget:
    """Talk to a policy on a task of one's own, choose the better of two replies at each turn, rate the whole.

    Args:
        respond: A policy; or a function from the messages so far, as `role` and `content`, to a reply. It is asked
            twice. Or two of them by name, which reply side by side and stay anonymous.
        items: Tasks, as rows with a `prompt`; by default the labeler thinks of one for each conversation.
        num_conversations: How many conversations, where there are no items.

    The others, and the errors, as in `compare`.
    """
    given = list(respond.items()) if isinstance(respond, Mapping) else [("", respond)]
    ways = [(name, _way(way, seed)) for seed, (name, way) in enumerate(given)]
    if not 1 <= len(ways) <= 2 or not all(callable(way) for _, way in ways):
        raise StoreError(
            f"a chat has one or two ways to respond, each a policy or a function of the messages, not {respond!r:.60}."
        )
    store = store if isinstance(store, LabelStore) else LabelStore(store)
    if items is None:  # Conversations of one's own are nobody else's.
        own = [Item(kind="chat", prompt="", id=f"{labeler}/chat/{number}") for number in range(num_conversations)]
        store.enroll(labeler)
        store.add_items(own, "chat", order="given")
        store.assign(labeler, [item.id for item in own])
    limit = num_conversations if items is None else None
    return _front("chat", items, store, labeler, guidelines, Options(comment=comment, limit=limit), ways)


def compare_clips(
    pairs: Sequence[Sequence[Clip]] | None = None,
    *,
    store: LabelStore | str | Path = "labels.sqlite",
    labeler: str = "me",
    question: str = QUESTION,
    frames_per_second: float = 10.0,
    comment: bool = False,
    guidelines: str | None = None,
    limit: int | None = None,
) -> LabelWidget:
    """Ask which of two clips shows the better behavior (Christiano et al. 2017, arXiv:1706.03741, section 2.2.2).

    Both play in step. The choice is the left one, the right one, "equally good", or "cannot tell", from which nothing
    is learnt; `clip_preferences` reads the choices.

    Args:
        pairs: What to ask about, added to the store if it does not have it: two arrays uint8 (frames, height, width, 3)
            of the same number of frames. Without them the store's own pairs are asked.
        question: What is asked of each pair.
        frames_per_second: How fast the clips play, at most 60.

    The others, and the errors, as in `compare`.
    """
    store = store if isinstance(store, LabelStore) else LabelStore(store)
    if pairs is not None:
        shown = {"question": question, "frames_per_second": frames_per_second}
        if new := clip_items(pairs, **shown, known=store.item_ids(KIND)):
            store.add_items(new, KIND)
    return _front(KIND, None, store, labeler, guidelines, Options(comment=comment, limit=limit))


def _way(way: Any, seed: int) -> Respond:
    if not hasattr(way, "network"):
        return way
    from rlhf_lab.labeling.talking import reply_with  # Here, as it loads PyTorch, which labels do without.

    return reply_with(way, seed=seed)
