"""The benchmarks' own arithmetic, what they hand to both sides, and the page that they write."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import report
from benchmarks.limits import Work
from benchmarks.run import COMPARED, _for, element_of
from benchmarks.workload import PYTHIA, SHAPES, Settings, models, rows
from rlhf_lab.generation import SamplingConfig, generate
from tests.capabilities import ROOT

TOY = Work(hidden=2, intermediate=3, layers=1, vocabulary=5, prompt=4, response=2)
RUN = {"prompts": 10, "batches": 2, "num_epochs": 1, "size": 4}


def test_flops_by_hand() -> None:
    # 16 weights of attention and 18 of feed-forward for 6 tokens, of which 2 are wanted after the last feed-forward.
    products = 2 * (6 * 34 - 4 * 18)
    seen = 4 * 1 * 2 * (4**2 / 2 + 2 * (4 + 1))
    assert TOY.forward(2, 2) == products + seen + 2 * 2 * 5 * 2
    assert TOY.flops("sft") == 3 * TOY.forward(2, 2)
    assert replace(TOY, is_gated=False).weights == (16, 12)


def test_the_least_time_is_arithmetic_where_memory_is_fast() -> None:
    for stage in ("sft", "ppo", "generate"):
        least = TOY.seconds(stage, products=100.0, bandwidth=1e9, **RUN)
        assert least == pytest.approx(10 * TOY.flops(stage) / 100)


def test_the_least_time_of_writing_is_memory_where_that_is_slow() -> None:
    # The second token of two batches reads 34 + 10 weights, and for ten prompts 4 + 1 tokens of 2 x 2 numbers.
    memory = 4 * (2 * 44 + 10 * 20) / 1.0
    prompts = 10 * replace(TOY, responses=0).forward(0, 0) / 1e9
    assert TOY.seconds("generate", products=1e9, bandwidth=1.0, **RUN) == pytest.approx(memory + prompts)
    assert TOY.seconds("sft", products=1e9, bandwidth=1.0, **RUN) == pytest.approx(10 * TOY.flops("sft") / 1e9)


def test_a_shared_prompts_cache_is_read_once() -> None:
    four = replace(TOY, responses=4)
    slow = {"products": 1e12, "bandwidth": 1.0} | RUN
    # For the second token the prompt's 4 x 4 numbers once, and of four responses a token each.
    assert four.seconds("generate", **slow) == pytest.approx(4 * (2 * 44 + 10 * 4 * (4 + 4)), rel=1e-6)


@pytest.mark.parametrize("name", PYTHIA)
def test_pythias_settings_are_tldrs_lengths(name: str) -> None:
    for stage, settings, _ in COMPARED:
        settings = replace(settings, size=name, **_for(name, settings))
        assert settings.prompt_tokens == (482, 512), stage
        assert settings.num_rows * settings.num_candidates == settings.num_steps * settings.batch_size


def test_a_network_with_more_tokens_than_the_tokenizer_writes_none_of_them() -> None:
    policy, reward = models(Settings(stage="generate", size="pythia-14m"))
    assert policy.network.config.vocab_size == reward.network.config.vocab_size == 50304
    # At this temperature each of 46,208 others would be as likely as a token that there is.
    hot = SamplingConfig(max_response_tokens=24, temperature=5.0)
    texts = [text for (text,) in generate(policy, ["A", "B", "C", "D"], hot)]
    assert min(len(policy.tokenizer(text)["input_ids"]) for text in texts) >= 12  # type: ignore[arg-type]
    with torch.no_grad():
        logits = policy.network(torch.tensor([[5, 6, 7]])).logits[0, -1]
    assert logits[: len(policy.tokenizer)].min() > logits[len(policy.tokenizer) :].max() + 50


def test_long_prompts_have_the_length_that_was_asked_for() -> None:
    settings = Settings(stage="sft", size="pythia-14m", prompt_tokens=(482, 512), batch_size=4, num_steps=1)
    element = element_of(settings, 0.0)
    assert 475 <= element.prompt <= 515 and 30 <= element.response <= 80
    tokenizer = models(replace(settings, size="small"))[0].tokenizer
    for stage in ("sft", "reward"):
        table = rows(replace(settings, stage=stage, batch_size=64), tokenizer)
        assert len(table) == 64 and all(row["prompt"].endswith("TL;DR:") for row in table)
        lengths = [len(tokenizer(row["prompt"])["input_ids"]) for row in table]  # type: ignore[arg-type]
        assert min(lengths) >= 478 and max(lengths) <= 518


def test_the_page_is_what_the_figures_say(tmp_path: Path) -> None:
    figures = json.loads((ROOT / "docs" / "performance.json").read_text())
    report.write(figures, tmp_path / "performance.md")
    assert (tmp_path / "performance.md").read_text() == (ROOT / "docs" / "performance.md").read_text()
    assert {path.name for path in (tmp_path / "figures" / "performance").iterdir()} == {"peers.png", "growth.png"}


def test_a_gpus_page_says_what_falls_short_of_its_peak(tmp_path: Path) -> None:
    figures = json.loads((ROOT / "docs" / "performance.json").read_text())
    rows = {row["name"]: copy.deepcopy(row) for row in figures["compared"]}
    for row in rows.values():
        row["settings"]["size"] = "pythia-1b"
        row["ours"]["share"] = 0.7
    rows["SFT"] |= {"flops": 0.5 * 989e12 * rows["SFT"]["ours"]["seconds"]}
    rows["DPO"] |= {"flops": 0.4 * 989e12 * rows["DPO"]["ours"]["seconds"]}
    rows["PPO, one response a prompt"]["ratios"] = [3.0, 3.5, 3.8]
    rows["generation"]["ours"]["share"] = 0.55
    machine = figures["machine"] | {"device": "NVIDIA H100 80GB HBM3"}
    chosen = [rows[name] for name in ("SFT", "DPO", "PPO, one response a prompt", "generation")]
    report.write({"machine": machine, "pairs": 5, "compared": chosen, "growing": {}}, tmp_path / "performance_gpu.md")
    page = (tmp_path / "performance_gpu.md").read_text()
    assert "- PPO, one response a prompt, hidden 2048: 3.50 of 4.0;" in page
    assert "- DPO: 40% of the peak in the GPU's datasheet; 45% were asked." in page
    assert "- generation: 55% of the time that it takes at least; 60% were asked." in page
    assert "- SFT:" not in page and "make bench-gpu" in page and "docs/performance_gpu.json" in page
    assert "How a PPO step grows" not in page


def test_shapes_of_pythia() -> None:
    """About 1.01 and 0.014 billion weights, as the names say."""
    for name, count in (("pythia-1b", 1.01e9), ("pythia-14m", 14e6)):
        shape = SHAPES[name]
        work = Work(
            hidden=shape["hidden_size"],
            intermediate=shape["intermediate_size"],
            layers=shape["num_hidden_layers"],
            vocabulary=shape["vocab_size"],
            prompt=0,
            response=0,
            is_gated=False,
        )
        weights = work.layers * sum(work.weights) + 2 * work.hidden * work.vocabulary
        assert weights == pytest.approx(count, rel=0.02)
