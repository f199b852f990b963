"""The simulation behind docs/scaling.md: its equations by hand, its sums, and that the page is what it says."""

import doctest
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import scaling, scaling_page
from benchmarks.cluster import (
    LLAMA_70B,
    PYTHIA_1B,
    PYTHIA_7B,
    TLDR,
    Job,
    Rates,
    Shape,
    all_gather_s,
    all_reduce_s,
    rates_of,
    settings,
    token_step_s,
    writing,
)
from benchmarks.fitting import fewest, free_bytes, need
from benchmarks.scaling import Step, apart, growing, in_turns, learning, rounded, saturates
from benchmarks.scaling_check import checked, measured_shares, typical_error
from tests.capabilities import ROOT

TOY = Shape(name="toy", hidden=2, intermediate=4, layers=1, vocabulary=10)
"""Attention 16, feed-forward 24, logits 20, embeddings 20."""
SHORT = Job(prompt=3, limit=4, median=2, epochs=1)
UNIT = Rates(name="unit", compute=1.0, memory=1.0, gpu_bytes=1e6, working_bytes=0.0)
H100 = settings({"ppo_share": 0.7, "decode_share": 0.5, "token_layer_s": 1e-3})[1]


@pytest.fixture(scope="module")
def performance() -> dict[str, Any]:
    return json.loads((ROOT / "docs/performance.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return json.loads((ROOT / "docs/scaling.json").read_text(encoding="utf-8"))


def test_weights_of_a_network() -> None:
    assert (TOY.read_weights, TOY.parameters, TOY.cache_numbers) == (60, 80, 4)
    assert replace(TOY, is_tied=True).parameters == 60
    # Queries and outputs 2 x 4, keys and values 2 x 2.
    assert replace(TOY, key_width=1).work(0, 0).weights == (12, 24)


@pytest.mark.parametrize(
    ("shape", "published"), [(PYTHIA_1B, 1_011_781_632), (PYTHIA_7B, 6_857_302_016), (LLAMA_70B, 68_976_648_192)]
)
def test_shapes_are_those_of_the_models(shape: Shape, published: int) -> None:
    """Their cards' parameters; ours leave out biases and norms."""
    assert shape.parameters == pytest.approx(published, rel=0.001)


def test_flops_of_reading_a_prompt() -> None:
    # 3 tokens through attention's 16, one through the feed-forward's 24; 4 x 2 x 4.5 of attention; one row of logits.
    assert TOY.work(3, 0).forward(1, 1) == 2 * (3 * 16 + 24) + 36 + 40


def test_a_token_takes_the_longer_of_bytes_and_flops() -> None:
    live, written = np.array([2, 0]), np.array([1, 2])
    # 60 weights and, for two responses, 4 tokens of 4 numbers; 2 bytes each.
    by_bytes = token_step_s(TOY, SHORT, replace(UNIT, compute=math.inf), live, written)
    assert by_bytes.tolist() == [2 * (60 + 2 * 4 * 4), 0]
    by_flops = token_step_s(TOY, SHORT, replace(UNIT, memory=math.inf), live, written)
    assert by_flops.tolist() == [2 * (2 * 60 + 4 * 2 * 4), 0]
    started = token_step_s(TOY, SHORT, replace(UNIT, memory=math.inf, token_layer_s=5.0), live, written)
    assert (started - by_flops).tolist() == [5, 0]


def test_a_copy_writes_until_its_longest_response_ends() -> None:
    rates = replace(UNIT, compute=math.inf)
    seconds = writing(TOY, SHORT, rates, np.array([[1, 3], [1, 1]]), 1e6)
    weights, token = 120, 8
    # Its prompts read all weights once; the second and third token are read with a context of 4 and 5.
    assert seconds.tolist() == [weights + (weights + 4 * token) + (weights + 5 * token), weights]


def test_responses_that_do_not_fit_wait_for_the_next_wave() -> None:
    rates, lengths = replace(UNIT, compute=math.inf), np.array([[3, 3]])
    row = (3 + 4) * TOY.cache_numbers * 2
    together, one_by_one = (writing(TOY, SHORT, rates, lengths, free)[0] for free in (2 * row, 2 * row - 1))
    assert one_by_one - together == 2 * 120  # The weights of two more token steps; caches are the same.


def test_messages() -> None:
    rates = replace(UNIT, inside=2.0)
    assert all_gather_s(rates, 8, 4) == 3 / 4 * 8 / 2
    assert all_gather_s(replace(rates, hop_s=1.0), 8, 4, pieces=2) == 2 * 3 + 3
    assert all_reduce_s(rates, 8, 4) == 2 * 3 / 4 * 8 / 2
    assert all_reduce_s(replace(rates, hop_s=1.0), 8, 4, pieces=2) == 2 * 4 + 6
    assert all_gather_s(rates, 8, 1) == all_reduce_s(rates, 8, 1) == 0
    # Nine GPUs are on two machines.
    between = replace(rates, between=0.5)
    assert (between.wire(8), between.wire(9)) == (2.0, 0.5)


def test_bytes_that_placements_hold() -> None:
    # Policy and critic 16 a weight, reference and reward model 2.
    assert need("ddp", TOY, UNIT).on(7) == 80 * (32 + 4)
    assert need("fsdp2", TOY, UNIT).on(4) == 80 * (8 + 32 / 4)
    assert need("trainers", TOY, UNIT).on(4) == 80 * 36 / 4
    assert need("writer", replace(TOY, ways=2), UNIT).on(4) == 80


def test_what_does_not_fit_is_refused_with_the_numbers_and_the_mend() -> None:
    with pytest.raises(ValueError, match=r"^7B as fsdp2 on 8 GPUs holds 82 GB on each, needs 9 GB.* 80 GB: share it "):
        in_turns(PYTHIA_7B, TLDR, H100, 8, 512)
    with pytest.raises(ValueError, match=r"holds 552 GB on each.*: no number of GPUs mends that; give generation GPUs"):
        in_turns(LLAMA_70B, TLDR, H100, 4000, 512)
    with pytest.raises(ValueError, match="70B apart needs more than 8 GPUs"):
        apart(LLAMA_70B, TLDR, H100, 8, 512)
    number = fewest("fsdp2", PYTHIA_7B, H100)
    assert number and free_bytes("fsdp2", PYTHIA_7B, TLDR, H100, number) > 0
    with pytest.raises(ValueError, match=f"share it over {number} GPUs or more"):
        free_bytes("fsdp2", PYTHIA_7B, TLDR, H100, number - 1)


def test_one_gpu_is_the_sum_of_its_parts() -> None:
    rates = replace(H100, inside=math.inf, between=math.inf, hop_s=0.0)
    step = in_turns(PYTHIA_1B, TLDR, rates, 1, 64)
    lengths = TLDR.lengths(1, 64, 0)
    wrote = writing(PYTHIA_1B, TLDR, rates, lengths, free_bytes("ddp", PYTHIA_1B, TLDR, rates, 1))[0]
    learnt = learning(PYTHIA_1B, TLDR, rates, 1, 64, float(lengths.mean()), "ddp")
    assert step.seconds == pytest.approx(wrote + learnt.reading + learnt.training + learnt.update)
    assert step.parts["waiting"] == step.parts["gradients"] == step.parts["weight sync"] == 0


def test_training_flops_by_hand() -> None:
    """One epoch and row, on a GPU whose memory costs nothing: three times a forward of policy and critic."""
    rates = replace(UNIT, memory=math.inf)
    work = TOY.work(3, 2)
    learnt = learning(TOY, SHORT, rates, 1, 1, 2.0, "ddp")
    assert learnt.training == 3 * (work.forward(2, 2) + work.forward(2, 0))
    assert learnt.reading == 2 * work.forward(2, 2) + work.forward(2, 0) + work.forward(1, 0)


def test_an_update_and_its_messages_by_hand() -> None:
    """Two networks of 80 weights, on four GPUs, whose rows are one pass; nothing hides."""
    rates = replace(UNIT, compute=math.inf, inside=1.0)
    alone, shared = (learning(TOY, SHORT, rates, 4, 4, 2.0, placement) for placement in ("ddp", "fsdp2"))
    assert alone.update == 2 * 80 * 28
    assert shared.update == 2 * 80 * 28 / 4
    gradients, weights = 3 / 4 * 4 * 80, 3 / 4 * 2 * 80
    assert alone.gradients == 2 * 2 * gradients  # Summed: dealt out, and gathered.
    assert shared.gradients == 2 * (2 * weights + gradients)  # Weights for the forward and again for the backward.
    trainers = learning(TOY, SHORT, rates, 4, 4, 2.0, "trainers")
    assert trainers.gradients == shared.gradients + 4 * weights  # Gathered for reading too.


def test_more_gpus_than_rows_leave_some_without_work() -> None:
    few, many = (in_turns(TOY, replace(SHORT, spread=0.0), UNIT, gpus, 4) for gpus in (4, 8))
    assert many.seconds == few.seconds
    assert many.parts["training"] == 2 * few.parts["training"]


@pytest.mark.parametrize("place", [in_turns, apart])
@pytest.mark.parametrize("gpus", [16, 1000])
def test_parts_are_all_gpus_time(place: Any, gpus: int) -> None:
    step = place(PYTHIA_7B, TLDR, H100, gpus, 512)
    assert sum(step.parts.values()) == pytest.approx(gpus * step.seconds)
    assert min(step.parts.values()) >= 0


@pytest.mark.parametrize("place", [in_turns, apart])
@pytest.mark.parametrize("name", ["compute", "memory", "inside", "between", "token_layer_s", "hop_s"])
def test_better_rates_are_never_slower(place: Any, name: str) -> None:
    better = getattr(H100, name) * (0.5 if name.endswith("_s") else 2.0)
    slow, fast = (place(PYTHIA_7B, TLDR, rates, 64, 512) for rates in (H100, replace(H100, **{name: better})))
    assert fast.seconds <= slow.seconds
    # 64 GPUs are on eight machines, whose own wires are not the slower ones.
    if place is in_turns and name != "inside":
        assert fast.seconds < slow.seconds


def test_apart_divides_so_that_neither_side_could_do_with_fewer() -> None:
    step = apart(PYTHIA_1B, TLDR, H100, 8, 512)
    others = [scaling._divided(PYTHIA_1B, TLDR, H100, 8, writers, 512, 0).seconds for writers in range(1, 8)]
    assert step.seconds == min(others) < max(others)


def test_the_copies_of_long_answers_wait() -> None:
    job = replace(TLDR, limit=200, median=50, spread=0.8)
    waits = [in_turns(PYTHIA_1B, replace(job, spread=spread), H100, 16, 64).parts["waiting"] for spread in (0.0, 0.8)]
    assert waits[0] == pytest.approx(0, abs=1e-9)
    assert waits[1] > 0.1


def test_a_part_saturates_when_it_costs_a_tenth_more() -> None:
    def step(gpus: int, **parts: float) -> Step:
        spent = {name: gpus * seconds for name, seconds in parts.items()}
        return Step(placement="", gpus=gpus, writers=gpus, episodes=8, seconds=sum(parts.values()), parts=spent)

    steps = [step(1, training=8.0, idle=0.0), step(2, training=4.0, idle=5.0), step(4, training=2.3, idle=0.0)]
    assert saturates(steps) == {"training": 4}  # 9.2 GPU-seconds of which 8 are its due; at 2, exactly its due.


def test_rates_are_shares_of_the_peak_and_come_from_what_was_measured(performance: dict[str, Any]) -> None:
    low, middle, high = settings(measured_shares(performance))
    assert middle.compute == 0.45 * 989e12
    assert middle.memory == 0.6 * 3.35e12
    (row,) = (
        row
        for row in performance["compared"]
        if row["name"] == "PPO, one response a prompt" and row["settings"]["size"] == "wide"
    )
    assert high.compute == row["ours"]["share"] * 989e12
    assert low.token_layer_s == measured_shares(performance)["token_layer_s"]


def test_predictions_of_measured_steps(performance: dict[str, Any], result: dict[str, Any]) -> None:
    rows = checked(performance)
    assert rounded(rows) == result["check"]
    assert typical_error(rows) < 0.2
    assert typical_error([{"predicted": 2.0, "measured": 1.0}, {"predicted": 1.0, "measured": 2.0}]) == pytest.approx(1)


@pytest.mark.parametrize(("shape", "placement", "a_gpu"), [(PYTHIA_7B, "in turns", 0), (LLAMA_70B, "apart", 64)])
def test_the_numbers_on_file_are_the_simulations(
    result: dict[str, Any], performance: dict[str, Any], shape: Shape, placement: str, a_gpu: int
) -> None:
    middle = settings(measured_shares(performance))[1]
    on_file = scaling_page.run_of(result, shape=shape.name, placement=placement, a_gpu=a_gpu)
    again = rounded(growing(shape, TLDR, middle, placement, a_gpu))
    assert again["saturates"] == on_file["saturates"]
    assert again["refused"] == on_file["refused"]
    for new, old in zip(again["steps"], on_file["steps"], strict=True):
        assert new["seconds"] == pytest.approx(old["seconds"], rel=2e-3)


def test_the_page_is_written_from_the_numbers(result: dict[str, Any]) -> None:
    text = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
    assert text == scaling_page.page(result)
    assert "No GPU was at hand" in text and "{" not in text.replace("```", "")


def test_examples() -> None:
    """Of benchmarks, whose docstrings pytest does not look for."""
    assert doctest.testmod(scaling_page) == (0, 2)


def test_measured_rates_take_the_place_of_guesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "GPUS", (1, 8, 64, 1000))
    monkeypatch.setattr(scaling, "LONG", replace(scaling.LONG, limit=64))
    file = tmp_path / "rates.json"
    file.write_text(json.dumps(asdict(H100) | {"name": "ours", "compute": 3e14}))
    assert rates_of(file).compute == 3e14
    command = ["scaling", "--rates", str(file), "--out", str(tmp_path / "scaling.json")]
    monkeypatch.setattr("sys.argv", [*command, "--performance", str(ROOT / "docs/performance.json")])
    scaling.main()
    written = json.loads((tmp_path / "scaling.json").read_text())
    assert {run["rates"] for run in written["runs"]} == {"ours"}
    assert "| 300 (30%) |" in (tmp_path / "scaling.md").read_text()
    assert len(list((tmp_path / "figures/scaling").glob("*.png"))) == 3
