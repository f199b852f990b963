"""Rewards on texts and simulated people: what is refused, what they choose, and how often two of them agree."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.special import expit

from rlhf_lab import feedback, generation
from rlhf_lab.data.judge import Judge, Judgement
from rlhf_lab.experiments.pretraining import train_tokenizer
from rlhf_lab.feedback import (
    CONFIDENCE_STEPS,
    VALUES,
    Labeler,
    LearnedReward,
    Population,
    Reward,
    population,
    scores_of,
    simulated_labels,
)
from rlhf_lab.generation import SamplingConfig
from rlhf_lab.models import Policy, RewardModel, new_policy, new_reward_model
from rlhf_lab.records import Comparison
from tests.networks import seeded, word_tokenizer

MARKERS = ("hedge", "sure", "polite", "complaint")

pytestmark = pytest.mark.usefixtures("one_thread")


class GradedJudge(Judge):
    """Reads the grade off the text: '5.5 sure feeling' is a 5.5 on every axis with a marker and a feeling."""

    def __init__(self) -> None:
        pass

    def judge(self, prompt: str, summary: str) -> Judgement:
        grade, *rest = summary.split()
        return Judgement(
            overall=float(grade),
            coverage=float(grade),
            accuracy=float(grade),
            coherence=float(grade),
            covered=(("feeling", "sad"),) if "feeling" in rest else (),
            misattributed=(),
            invented=(("when", "invented"),) if "invented" in rest else (),
            num_words=len(rest) + 1,
            markers=tuple(word for word in rest if word in MARKERS),
        )


JUDGE = GradedJudge()


@pytest.fixture(autouse=True)
def people_read_grades(monkeypatch: pytest.MonkeyPatch) -> None:
    """`population` with the judge above, which is exact and, unlike the gold judge, built at once."""
    monkeypatch.setattr(feedback, "Population", functools.partial(Population, judge=JUDGE))


def labeler(name: str = "ann", *, noise: float = 1.0, **tastes: float) -> Labeler:
    return Labeler(id=name, axes={"overall": 1.0}, tastes=tastes, noise=noise)


def people(*labelers: Labeler, agreement: float = 0.73) -> Population:
    return Population(labelers, agreement, JUDGE)


@pytest.fixture(scope="module")
def policy() -> Policy:
    """Random weights, and a tokenizer of seven words."""
    return new_policy("small", word_tokenizer(["<eos>", "[PAD]", "a", "b", "c", "d", "e"]))


@pytest.fixture(scope="module")
def reward_model(policy: Policy) -> RewardModel:
    model = new_reward_model(policy, generator=seeded())
    model.network.config.score_offset = 0.25
    return model


PROMPTS = ["a b c", "d", "e e a b", "c a", "b"]
RESPONSES = ["b", "c d e a", "", "a a", "e d c b a"]


def test_any_function_is_a_reward_whatever_kind_of_numbers_it_returns() -> None:
    for returned in ([3, 1], (3.0, 1.0), np.array([3.0, 1.0]), torch.tensor([3.0, 1.0]), iter([3, 1])):
        scores = scores_of(lambda prompts, responses, returned=returned: returned, ["p", "q"], ["a", "b"])
        assert scores.tolist() == [3.0, 1.0]


def test_a_reward_sees_every_prompt_with_its_response() -> None:
    seen: list[Any] = []

    def reward(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        seen.extend(zip(prompts, responses, strict=True))
        return [0.0] * len(responses)

    assert isinstance(reward, Reward)
    scores_of(reward, ("p", "q"), ("a", "b"))
    assert seen == [("p", "a"), ("q", "b")]


def test_a_judge_is_a_reward() -> None:
    assert isinstance(JUDGE, Reward)
    assert scores_of(JUDGE, ["p", "q"], ["5.5 sure", "2"]).tolist() == [5.5, 2.0]


def fails(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    raise KeyError("no such word")


BAD_REWARDS: dict[str, tuple[Reward, str]] = {
    "raises": (fails, "raised KeyError: 'no such word'"),
    "too few": (lambda prompts, responses: [1.0], "returned 1 scores for 2 responses"),
    "too many": (lambda prompts, responses: [1.0] * 3, "returned 3 scores for 2 responses"),
    "nothing": (lambda prompts, responses: None, "raised TypeError"),  # type: ignore[arg-type, return-value]
    "one number": (lambda prompts, responses: 1.0, "raised TypeError"),  # type: ignore[arg-type, return-value]
    "NaN": (lambda prompts, responses: [1.0, math.nan], "returned nan for the response 'bad one'"),
    "inf": (lambda prompts, responses: [1.0, math.inf], "returned inf for the response 'bad one'"),
    "-inf": (lambda prompts, responses: [1.0, -math.inf], "returned -inf for the response 'bad one'"),
    "wrong arguments": (lambda texts: [1.0, 1.0], "raised TypeError"),  # type: ignore[arg-type, misc]
}


@pytest.mark.parametrize("name", BAD_REWARDS)
def test_a_reward_that_misbehaves_is_one_clear_error(name: str) -> None:
    reward, message = BAD_REWARDS[name]
    with pytest.raises(ValueError, match=f"the reward function {message}"):
        scores_of(reward, ["p", "q"], ["good one", "bad one"])


def test_a_learned_reward_is_the_score_at_eos_less_the_offset(reward_model: RewardModel) -> None:
    """Against transformers' own forward, one unpadded text at a time."""
    expected = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        ids = reward_model.tokenizer(f"{prompt} {response} <eos>")["input_ids"]
        with torch.no_grad():
            expected.append(reward_model.network(input_ids=torch.tensor([ids])).logits.item() - 0.25)
    scores = scores_of(LearnedReward(reward_model), PROMPTS, RESPONSES)
    assert scores.tolist() == pytest.approx(expected, abs=1e-5)
    assert scores.std() > 0.01


def test_a_learned_reward_does_not_depend_on_the_batch(reward_model: RewardModel) -> None:
    whole = LearnedReward(reward_model)(PROMPTS, RESPONSES)
    assert LearnedReward(reward_model, batch_size=2)(PROMPTS, RESPONSES) == pytest.approx(whole, abs=1e-5)
    assert LearnedReward(reward_model)(PROMPTS[::-1], RESPONSES[::-1]) == pytest.approx(whole[::-1], abs=1e-5)


def test_utility_by_hand() -> None:
    judgement = JUDGE.judge("p", "4 sure sure hedge feeling word invented")
    person = Labeler(
        id="ann",
        axes={"overall": 0.5, "accuracy": 0.25},
        tastes={"words": 0.1, "sure": 0.3, "hedge": -0.2, "feeling": 1.0, "polite": 9.0, "detail": 0.4},
    )
    detail = 2 * 0.4  # a fact is detail, true or not
    assert person.utility(judgement) == pytest.approx(0.75 * 4 + 0.1 * 7 + 2 * 0.3 - 0.2 + 1.0 + detail)


def test_likings_for_words_and_markers_have_an_end() -> None:
    """Else a policy would win by thanking a hundred times."""
    person = labeler(words=0.1, sure=1.0)
    assert person.utility(JUDGE.judge("p", "4" + " word" * 200)) == pytest.approx(4 + 0.1 * 60)
    assert person.utility(JUDGE.judge("p", "4" + " sure" * 60)) == pytest.approx(4 + 0.1 * 60 + 6)


def test_utilities_are_labelers_by_responses() -> None:
    group = people(labeler("ann", sure=1.0), labeler("bob"))
    assert group.utilities(["p", "q", "r"], ["3", "4 sure", "5"]).tolist() == [[3, 5, 5], [3, 4, 5]]


@pytest.mark.parametrize(("noise", "difference"), [(1.0, 1.0), (2.0, 1.0), (0.5, -0.7), (1.0, 0.0)])
def test_the_probability_of_a_choice_is_logistic(noise: float, difference: float) -> None:
    count, temperature = 20_000, 1.5
    felt = people(labeler(noise=noise)).felt(
        np.full((1, count), difference), np.random.default_rng(0), temperature=temperature
    )
    prob = expit(difference / (noise * temperature))
    assert (felt > 0).mean() == pytest.approx(prob, abs=4 * math.sqrt(prob * (1 - prob) / count))


def test_a_choice_is_the_better_answer_as_often_as_agreement_implies() -> None:
    """With one difference for all pairs, p^2 + (1 - p)^2 = 0.73 gives p = 0.839."""
    count = 3000
    chosen = people(labeler()).compare(["p"] * count, [("4", "3")] * count)["chosen"]
    prob = (1 + math.sqrt(2 * 0.73 - 1)) / 2
    assert prob == pytest.approx(0.839, abs=1e-3)
    assert chosen[:].count("4") / count == pytest.approx(prob, abs=4 * math.sqrt(prob * (1 - prob) / count))


def test_comparisons_are_rows_of_the_pairs_asked_about() -> None:
    group = people(labeler("ann"), labeler("bob"))
    prompts = [f"post {index}" for index in range(60)]
    pairs = [(f"{1 + index % 7}", f"{1 + (index + 3) % 7} sure") for index in range(60)]
    rows = group.compare(prompts, pairs)
    assert rows["prompt"][:] == prompts
    assert [{row["chosen"], row["rejected"]} for row in rows] == [set(pair) for pair in pairs]
    assert set(rows["labeler"]) == {"ann", "bob"}
    plain = {"chosen_prob": 1.0, "group": ""}  # one pair, and a choice without doubt
    assert [Comparison.from_dict(row).to_dict() for row in rows] == [row | plain for row in rows]


def test_several_labels_of_a_pair_are_by_different_people() -> None:
    group = people(*(labeler(f"person {index}") for index in range(4)))
    pairs = [("5", "3"), ("4", "6")] * 20
    rows = group.compare([f"post {index}" for index in range(40)], pairs, num_labels=3)
    assert rows["prompt"][:] == [f"post {index}" for index in range(40) for _ in range(3)]
    asked = [rows["labeler"][start : start + 3] for start in range(0, 120, 3)]
    assert all(len(set(three)) == 3 for three in asked) and len({labeler for three in asked for labeler in three}) == 4
    votes = group.votes([f"post {index}" for index in range(40)], pairs, 3)
    chosen = np.array([row["chosen"] == pairs[place // 3][0] for place, row in enumerate(rows)]).reshape(40, 3)
    assert (chosen.sum(1) == votes.sum(0)).all()
    with pytest.raises(ValueError, match="5 different labelers were asked for, the population has 4"):
        group.compare(["p"], [("5", "3")], num_labels=5)
    with pytest.raises(ValueError, match="0 different labelers were asked for"):
        group.compare(["p"], [("5", "3")], num_labels=0)


def test_confidence_grows_with_the_felt_difference() -> None:
    """Shares of 1 to 4 are those of |d + logistic noise| between the steps."""
    count = 6000
    rows = people(labeler()).compare(["p"] * count, [("4", "3")] * count, seed=1)
    prob = (1 + math.sqrt(2 * 0.73 - 1)) / 2
    difference = math.log(prob / (1 - prob))
    steps = np.array([0.0, *CONFIDENCE_STEPS, np.inf])
    above = expit(difference - steps) + expit(-difference - steps)
    shares = np.bincount(rows["confidence"], minlength=5) / count
    assert shares[0] == 0
    assert shares[1:] == pytest.approx(above[:-1] - above[1:], abs=0.025)
    sure = [row for row in rows if row["confidence"] == 4]
    unsure = [row for row in rows if row["confidence"] == 1]
    right = [sum(row["chosen"] == "4" for row in part) / len(part) for part in (unsure, sure)]
    assert right[0] < 0.7 < 0.9 < right[1]


@pytest.mark.parametrize("agreement", [0.6, 0.73, 0.85])
def test_two_labelers_agree_as_often_as_promised(agreement: float) -> None:
    rng = np.random.default_rng(3)
    pairs = [tuple(f"{grade:.2f}" for grade in rng.uniform(1, 7, size=2)) for _ in range(400)]
    group = population(agreement=agreement)
    votes = group.votes(["p"] * len(pairs), pairs, 20, seed=4)  # type: ignore[arg-type]
    assert votes.shape == (20, 400)
    first = votes.sum(0)
    agreeing = (first * (first - 1) + (20 - first) * (19 - first)) / (20 * 19)
    assert agreeing.mean() == pytest.approx(agreement, abs=4 * agreeing.std() / math.sqrt(len(pairs)))
    assert agreeing.std() / math.sqrt(len(pairs)) < 0.012


def test_the_temperature_solves_its_equation_and_people_s_noise_counts() -> None:
    differences = np.array([[1.0, -2.0, 0.3], [0.5, -1.0, 0.1]])
    group = people(labeler("ann"), labeler("bob", noise=2.0), agreement=0.7)
    scale = group.temperature(differences)
    prob = (expit(differences[0] / scale) + expit(differences[1] / (2 * scale))) / 2
    assert (prob**2 + (1 - prob) ** 2).mean() == pytest.approx(0.7, abs=1e-6)


def test_votes_are_of_different_labelers() -> None:
    """Two who like a word above all and three who hate it: five votes hold two for it, three votes up to two."""
    likers = [labeler(f"liker {index}", sure=1000.0) for index in range(2)]
    haters = [labeler(f"hater {index}", sure=-1000.0) for index in range(3)]
    pairs = [("4 sure", "4")] * 200 + [("5", "3")] * 200
    votes = people(*likers, *haters, agreement=0.7).votes(["p"] * 400, pairs, 5)
    assert set(votes[:, :200].sum(0)) == {2}
    counts = people(*likers, *haters, agreement=0.7).votes(["p"] * 400, pairs, 3)[:, :200].sum(0)
    assert set(counts) == {0, 1, 2}
    with pytest.raises(ValueError, match="6 different labelers were asked for, the population has 5"):
        people(*likers, *haters).votes(["p"], [("4", "3")], 6)


def test_pairs_on_which_nobody_can_agree_are_refused() -> None:
    with pytest.raises(ValueError, match=r"agree on 50% to 50% of these pairs.*never on 73%; change the agreement"):
        people(labeler()).compare(["p"] * 3, [("4", "4 word")] * 3)


@pytest.mark.parametrize(
    ("taste", "with_it", "without"),
    [(kind, f"4 {kind} word", "4 word word") for kind in (*MARKERS, "feeling")] + [("words", "4 a b c d", "4")],
)
def test_a_taste_moves_choices_in_its_direction(taste: str, with_it: str, without: str) -> None:
    differing = [("5", "3")] * 900
    shares = []
    for liking in (-1.0, 0.0, 1.0):
        group = people(labeler(**{taste: liking}))
        votes = group.votes(["p"] * 1200, [(with_it, without)] * 300 + differing, 1, seed=5)
        shares.append(votes[0, :300].mean())
    assert shares[0] < 0.35 < 0.4 < shares[1] < 0.6 < 0.65 < shares[2]


@pytest.mark.parametrize(
    ("values", "liked", "disliked"),
    [
        ("general", "5", "4"),
        ("brief", "4 a", "4" + " a" * 20),
        ("brief", "4 a", "4 hedge"),
        ("thorough", "4" + " a" * 20, "4 a"),
        ("warm", "4 feeling", "4 a"),
        ("warm", "4 polite", "4 a"),
        ("trusting", "4 sure", "4 a"),
        ("trusting", "4 a", "4 hedge"),
        ("impressed", "4 sure", "4 a"),
        ("impressed", "4 invented", "4 a"),
    ],
)
def test_groups_choose_by_what_they_value(values: str, liked: str, disliked: str) -> None:
    group = population(values)
    utilities = group.utilities(["p", "p"], [liked, disliked])
    assert (utilities[:, 0] - utilities[:, 1]).mean() > 0.2
    votes = group.votes(["p"] * 300, [(liked, disliked)] * 300, 1, seed=6)
    assert votes.mean() > 0.6


def test_every_group_prefers_the_better_summary() -> None:
    for values in VALUES:
        utilities = population(values).utilities(["p", "p"], ["6", "3"])
        assert (utilities[:, 0] > utilities[:, 1] + 1.0).all()


def test_groups_mix_in_equal_parts_and_people_differ() -> None:
    group = population("brief+warm", num_labelers=6, seed=1)
    assert [one.id.split("-")[0] for one in group.labelers] == ["brief", "warm"] * 3
    assert len({one.id for one in group.labelers}) == 6
    assert len({one.noise for one in group.labelers}) == 6
    assert group.labelers == population("brief+warm", num_labelers=6, seed=1).labelers
    assert group.labelers != population("brief+warm", num_labelers=6, seed=2).labelers


def test_values_and_agreements_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValueError, match="values breif are unknown; choose among general, brief"):
        population("warm+breif")
    for agreement in (0.5, 1.0, 73.0):
        with pytest.raises(ValueError, match=rf"agreement must lie between 0\.5 and 1, not {agreement}"):
            population(agreement=agreement)


def test_ratings_are_whole_numbers_from_1_to_7_that_follow_the_summary() -> None:
    group = population(num_labelers=10)
    texts = [f"{grade}" for grade in (1, 2, 3, 4, 5, 6, 7)] * 20
    ratings = group.rate(["p"] * len(texts), texts, seed=7)
    assert ratings.shape == (10, 140)
    assert np.issubdtype(ratings.dtype, np.integer)
    assert set(ratings.flat) == {1, 2, 3, 4, 5, 6, 7}
    means = ratings.reshape(10, 20, 7).mean((0, 1))
    assert (np.diff(means) > 0).all()


def test_people_use_the_scale_in_their_own_way() -> None:
    axes, tastes = {"overall": 1.0}, {}
    plain = Labeler(id="plain", axes=axes, tastes=tastes)
    generous = Labeler(id="generous", axes=axes, tastes=tastes, rating_offset=1.5)
    narrow = Labeler(id="narrow", axes=axes, tastes=tastes, rating_scale=0.2)
    ratings = people(plain, generous, narrow).rate(["p"] * 400, ["3", "5"] * 200)
    means = ratings.mean(1)
    spans = ratings[:, 1::2].mean(1) - ratings[:, ::2].mean(1)
    assert means[1] - means[0] == pytest.approx(1.5, abs=0.25)
    assert spans[0] == pytest.approx(2.0, abs=0.3)
    assert spans[2] == pytest.approx(0.4, abs=0.3)


def test_ranks_are_permutations_that_follow_the_summaries() -> None:
    groups = [["2", "6", "4", "5"]] * 300
    ranks = np.array(population().rank(["p"] * 300, groups, seed=8))
    assert (np.sort(ranks, axis=1) == [1, 2, 3, 4]).all()
    worst, best, third, second = ranks.mean(0)
    assert best < second < third < worst


def test_ranks_of_people_who_agree_are_the_order_of_their_utilities() -> None:
    agreeing = people(labeler(sure=5.0), agreement=0.999)
    ranks = agreeing.rank(["p", "q"] * 50, [["3", "1 sure", "5", "4"], ["7", "2"]] * 50)
    assert np.mean([rank == [4, 1, 2, 3] for rank in ranks[::2]]) > 0.9
    assert all(rank == [1, 2] for rank in ranks[1::2])


def test_ranks_are_as_reliable_as_comparisons() -> None:
    """Two labelers agree on the order of a ranking's pairs as often as on pairs by themselves."""
    group = people(labeler())
    answers = [["5", "4", "3.5"]] * 4000
    first, second = (group.rank(["p"] * 4000, answers, seed=seed) for seed in (0, 1))
    same = [
        (one[a] < one[b]) == (two[a] < two[b])
        for one, two in zip(first, second, strict=True)
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert np.mean(same) == pytest.approx(group.agreement, abs=0.015)


def test_no_pairs_and_a_score_that_is_no_number_are_refused() -> None:
    with pytest.raises(ValueError, match="there are no pairs"):
        people(labeler()).temperature(np.zeros((1, 0)))
    for scores in ([None, 1.0], ["x", 1.0], [[1.0, 2.0], 1.0]):
        with pytest.raises(ValueError, match="no finite number"):
            scores_of(lambda prompts, responses, scores=scores: scores, ["p", "p"], ["a", "b"])


ANSWERS: dict[str, Callable[[Population, int], Any]] = {
    "compare": lambda group, seed: group.compare(["p"] * 40, [("4", "3.5")] * 40, seed=seed)[:],
    "votes": lambda group, seed: group.votes(["p"] * 40, [("4", "3.5")] * 40, 3, seed=seed).tolist(),
    "rate": lambda group, seed: group.rate(["p"] * 40, ["4"] * 40, seed=seed).tolist(),
    "rank": lambda group, seed: group.rank(["p"] * 40, [["4", "3.5", "3"]] * 40, seed=seed),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_seed_decides_every_answer(kind: str) -> None:
    group = population()
    assert ANSWERS[kind](group, 1) == ANSWERS[kind](group, 1)
    assert ANSWERS[kind](group, 1) != ANSWERS[kind](group, 2)


class Writer:
    """Stands for `generate`: writes grades, and the same one twice for the prompts that it is told to."""

    def __init__(self, repeats: Callable[[int], bool]) -> None:
        self.calls, self.repeats = 0, repeats

    def __call__(self, policy: Policy, prompts: Sequence[str], *args: Any, **settings: Any) -> list[list[str]]:
        groups = []
        for _ in prompts:
            self.calls += 1
            groups.append(["4", "4"] if self.repeats(self.calls) else ["4", "2"])
        return groups


def test_identical_samples_are_not_asked_about(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "generate", Writer(lambda call: call % 3 == 0))
    prompts = Dataset.from_list([{"prompt": f"post {index}"} for index in range(4)])
    rows = simulated_labels(policy, prompts, num_pairs=10, people=people(labeler()))
    assert len(rows) == 10
    assert all({row["chosen"], row["rejected"]} == {"4", "2"} for row in rows)
    assert set(rows["prompt"]) == set(prompts["prompt"])


def test_a_policy_that_repeats_itself_cannot_be_labeled(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = Dataset.from_list([{"prompt": "post"}])
    monkeypatch.setattr(generation, "generate", Writer(lambda call: call > 2))
    with pytest.raises(ValueError, match="only 2 of 5 pairs differ: the policy repeats itself; raise the temperature"):
        simulated_labels(policy, prompts, num_pairs=5, people=people(labeler()))
    with pytest.raises(ValueError, match="there are no prompts"):
        simulated_labels(policy, prompts.select([]), num_pairs=5, people=people(labeler()))


def test_pairs_of_several_policies_have_two_authors_each(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = [replace(policy) for _ in range(3)]
    names = {id(one): name for one, name in zip(policies, "abc", strict=True)}

    def signed(writer: Policy, prompts: Sequence[str], *args: Any, **settings: Any) -> list[list[str]]:
        return [[f"{names[id(writer)]} on {prompt}"] for prompt in prompts]

    monkeypatch.setattr(generation, "generate", signed)
    prompts = [f"post {index}" for index in range(60)]
    asked, pairs = generation.distinct_pairs(policies, prompts, 60, seed=4)
    assert (asked, pairs) == generation.distinct_pairs(policies, prompts, 60, seed=4)
    assert all(text.endswith(f" on {prompt}") for prompt, pair in zip(asked, pairs, strict=True) for text in pair)
    authors = Counter((first[0], second[0]) for first, second in pairs)
    # Each of the six ordered pairs about ten times: 3 would be more than two standard deviations off.
    assert set(authors) == {(one, two) for one in "abc" for two in "abc" if one != two}
    assert min(authors.values()) > 3
    with pytest.raises(ValueError, match="there are no policies to compare summaries of"):
        generation.distinct_pairs([], prompts, 5)


def test_a_policy_s_own_samples_are_labeled(policy: Policy) -> None:
    class Lengths(GradedJudge):
        def judge(self, prompt: str, summary: str) -> Judgement:
            return JUDGE.judge(prompt, f"{1 + len(summary) % 7}")

    prompts = Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS])
    group = Population((labeler("ann"), labeler("bob")), 0.6, Lengths())
    short = SamplingConfig(max_response_tokens=3, temperature=1.0)
    first, again, other = (
        simulated_labels(policy, prompts, num_pairs=5, people=group, sampling=short, seed=seed)[:] for seed in (1, 1, 2)
    )
    assert first == again
    assert first["chosen"] != other["chosen"]
    assert all(one != two for one, two in zip(first["chosen"], first["rejected"], strict=True))


def test_a_repeated_prompt_scores_as_it_does_alone() -> None:
    """Responses to one prompt share its reading, whatever their number; the scores do not change."""
    tokenizer = train_tokenizer(["one two three four five six seven"] * 4, 300)
    model = new_reward_model(new_policy("small", tokenizer), generator=seeded())
    prompts = ["one two"] * 3 + ["three four five"] + ["one two"] * 2
    responses = [" six", " seven six", " two", " one", " four", " five five"]
    alone = [LearnedReward(model)([p], [r])[0] for p, r in zip(prompts, responses, strict=True)]
    assert LearnedReward(model, batch_size=3)(prompts, responses) == pytest.approx(alone, abs=1e-5)
    assert LearnedReward(model)([], []) == []


def test_noise_at_which_the_agreement_cannot_be_reached_is_refused() -> None:
    for noise, reached in ((1e-6, "100% to 100%"), (1e6, "50% to 50%")):
        group = people(labeler(noise=noise))
        with pytest.raises(ValueError, match=rf"agree on {reached} of these pairs.*never on 73%.*the labelers' noise"):
            group.compare(["p"] * 3, [("4", "3")] * 3)


def test_nothing_to_compare_or_rank_is_refused() -> None:
    group = people(labeler())
    for ask in (
        lambda: group.compare([], []),
        lambda: group.votes([], [], 1),
        lambda: group.rank([], []),
        lambda: group.rank(["p"], [["4"]]),
    ):
        with pytest.raises(ValueError, match="there are no pairs of answers to ask people about; give at least one"):
            ask()


@pytest.mark.parametrize("unit", [0.02, 1.0, 50.0])
def test_the_better_of_two_ranks_first_as_often_as_it_is_chosen(unit: float) -> None:
    """Whatever the unit of the grades: p^2 + (1 - p)^2 = 0.73."""
    ranks = people(labeler(noise=0.5)).rank(["p"] * 3000, [[f"{unit}", "0"]] * 3000)
    prob = (1 + math.sqrt(2 * 0.73 - 1)) / 2
    assert np.mean([rank == [1, 2] for rank in ranks]) == pytest.approx(prob, abs=0.027)


def test_a_population_of_nobody_is_refused() -> None:
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"num_labelers must be 1 or more, not {number}"):
            population(num_labelers=number)
    assert len(population(num_labelers=1).labelers) == 1


@pytest.mark.parametrize(
    "value",
    [None, "x", [1.0], [[1.0, 2.0]], {}, 10**400, torch.ones(2), np.ones(2)],
    ids=lambda value: f"{value!r:.12}",
)
def test_a_score_that_is_no_number_is_named_with_its_response(value: Any) -> None:
    with pytest.raises(ValueError, match=r"the reward function returned .* for the response 'bad one'") as caught:
        scores_of(lambda prompts, responses: [1.0, value], ["p", "q"], ["good one", "bad one"])
    assert f"{value!r:.60}" in str(caught.value)
