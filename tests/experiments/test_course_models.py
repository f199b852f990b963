"""The command that makes the course's trained models: what it writes, that it continues, and that it looks at them."""

import json
from pathlib import Path

import pytest
import torch

from rlhf_lab import shipped
from rlhf_lab.experiments import course_models
from rlhf_lab.experiments.course_models import MEASURED_FILE, CourseModelsConfig, make_course_models
from rlhf_lab.models import Policy
from rlhf_lab.shipped import load_shipped_comparisons, load_trained


@pytest.mark.slow
def test_the_command_makes_models_histories_and_comparisons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {"medium": ("supervised", "reward_model", "human_feedback", "no_penalty"), "small": ("human_feedback",)}
    for module in (shipped, course_models):
        monkeypatch.setattr(module, "SHIPPED", stages)
    # Sixteen posts are too few to tell: one of them is six points.
    monkeypatch.setattr(course_models, "TOLERANCE", 0.2)
    runs, data = tmp_path / "runs", tmp_path / "data"
    config = CourseModelsConfig(out=str(runs), data=str(data), scale="tiny")
    assert make_course_models(config) == data
    for size, names in stages.items():
        for stage in names:
            loaded = load_trained(stage, size, folder=data)
            assert loaded.history
            lines = (runs / size / stage / "metrics.jsonl").read_text().splitlines()
            assert [row["step"] for row in loaded.history] == [json.loads(line)["step"] for line in lines]
    own = Policy.load(runs / "small" / "human_feedback" / "result")
    kept = load_trained("human_feedback", "small", folder=data)
    for name, tensor in kept.network.state_dict().items():
        assert torch.equal(tensor, own.network.state_dict()[name].half().float()), name
    # The smaller one learnt from the larger one's comparisons.
    shared = (runs / "comparisons.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in shared] == load_shipped_comparisons(folder=data).to_list()
    assert json.loads((runs / "small" / "config.json").read_text())["comparisons"] == str(runs / "comparisons.jsonl")
    measured = json.loads((data / MEASURED_FILE).read_text())
    assert set(measured) == {"config", "medium/supervised", "medium/reward_model", "medium/human_feedback"} | {
        "medium/no_penalty",
        "small/human_feedback",
    }
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    monkeypatch.setattr(course_models, "TOLERANCE", -1.0)
    with pytest.raises(
        ValueError, match=r"medium/supervised does not do in half precision what it did before: its win"
    ):
        make_course_models(config)
    assert before == {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="'huge'"):
        CourseModelsConfig(scale="huge")
