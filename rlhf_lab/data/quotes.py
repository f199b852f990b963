"""GopherCite's answers in the embedded world: a summary, and a sentence of the post that is to support it.

A completion is ` SUMMARY %<QUOTE>%`. Whether the quote supports the summary is a second judgement beside preference: a
summary may be liked and wrong, or right and quoted amiss.

Reference: Menick et al. 2022, *Teaching language models to support answers with verified quotes*, arXiv:2203.11147.
"""

import math
import re
from dataclasses import dataclass

from datasets import Dataset

from rlhf_lab.data.batching import completion_text
from rlhf_lab.data.datasets import demonstrations_of
from rlhf_lab.data.judge import SLOT_WEIGHTS, Fact, Judge, Judgement

OPEN, CLOSE = "%<", ">%"
_QUOTED = re.compile(rf"(.*?)\s*{OPEN}(.*){CLOSE}\s*", re.DOTALL)
_END_OF_SENTENCE = re.compile(r"(?<=[.?!])\s+")


@dataclass(frozen=True)
class QuoteJudgement:
    """What a summary with a quote is worth."""

    summary: Judgement
    verbatim: bool
    """The quote is one of the post's sentences, to the letter."""
    supporting: tuple[Fact, ...]
    """Facts that both the summary and a verbatim quote state; who it is about is not enough."""

    @property
    def supported(self) -> bool:
        """The quote supports a fact of the summary, and the summary states no wrong one."""
        return bool(self.supporting) and not (self.summary.invented or self.summary.misattributed)


def sentences_of(prompt: str) -> list[str]:
    r"""The sentences of a query's post.

    Example:
        >>> sentences_of("SUBREDDIT: r/x\n\nTITLE: Y\n\nPOST: He left. Why?\n\nSo it goes.\n\nTL;DR:")
        ['He left.', 'Why?', 'So it goes.']
    """
    post = prompt.partition("\n\nPOST: ")[2].removesuffix("TL;DR:").strip()
    return _END_OF_SENTENCE.split(post) if post else []


def with_quote(summary: str, quote: str) -> str:
    """A summary and its quote as a completion.

    Example:
        >>> with_quote("Mom left.", "My mother went.")
        ' Mom left. %<My mother went.>%'
    """
    return completion_text(f"{summary.strip()} {OPEN}{quote}{CLOSE}")


def split_quote(response: str) -> tuple[str, str]:
    """Summary and quote of a response; the quote is empty where its marks are missing or not the response's end.

    Example:
        >>> split_quote(" Mom left. %<My mother went.>%")
        ('Mom left.', 'My mother went.')
        >>> split_quote(" Mom left. %<My mother")
        ('Mom left.', '')
    """
    if found := _QUOTED.fullmatch(response):
        return found[1].strip(), found[2].strip()
    return response.partition(OPEN[0])[0].strip(), ""


def judge_quote(judge: Judge, prompt: str, response: str) -> QuoteJudgement:
    """Both judgements of a summary with a quote."""
    text, quote = split_quote(response)
    summary, verbatim = judge.judge(prompt, text), quote in sentences_of(prompt)
    return QuoteJudgement(summary, verbatim, _common(judge, summary, quote) if verbatim else ())


def _common(judge: Judge, summary: Judgement, sentence: str) -> tuple[Fact, ...]:
    stated = judge.facts(sentence).items()
    return tuple(fact for fact in summary.covered if fact in stated and fact[0] != "who")


def quoting_demonstrations(demonstrations: Dataset, judge: Judge) -> Dataset:
    """The demonstrations that a sentence of their post supports, each with the one that supports most of it.

    Those that state a wrong fact are left out, as raters left out what was not supported.

    Args:
        demonstrations: Rows of `prompt` and `completion` of the embedded world.
        judge: Knows the facts of posts and summaries.

    Raises:
        ValueError: None is supported, as of posts of another world.
    """
    quoting = []
    for row in demonstrations_of(demonstrations).to_list():
        prompt, summary = row["prompt"], row["completion"].strip()
        judged = judge.judge(prompt, summary)

        def weight(sentence: str, judged: Judgement = judged) -> float:
            return math.fsum(SLOT_WEIGHTS[slot] for slot, _ in _common(judge, judged, sentence))

        completion = with_quote(summary, max(sentences_of(prompt), key=weight, default=""))
        if judge_quote(judge, prompt, completion).supported:
            quoting.append({"prompt": prompt, "completion": completion})
    if not quoting:
        raise ValueError(
            f"none of the {len(demonstrations)} demonstrations is supported by a sentence of its post; the judge knows "
            f"the facts of the embedded world only: give demonstrations of load_tldr('world')."
        )
    return Dataset.from_list(quoting)
