"""vLLM writes what Transformers writes, from the same numbers, and trains what it trains.

vLLM asks for other versions than ours, so it lives in an environment of its own (`make vllm`).
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.launch import LaunchCommand, launched
from rlhf_lab.vllm_backend import VLLMBackend
from tests.capabilities import ROOT

PYTHON = Path(os.environ.get("RLHF_LAB_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
MODULE = "tests.vllm.rollouts"
with_vllm = [pytest.mark.slow, pytest.mark.alone, pytest.mark.needs("vllm")]
SAME = ("full weights", "greedy", "crowded", "changed weights", "adapters", "gpt_neox", "gpt2")


def made_by(out: Path, processes: int = 1) -> dict[str, Any]:
    """What the script made in vLLM's environment; several processes share its weights, as `launch` starts them."""
    arguments, environment = ["python", "-m", MODULE, str(out)], {"ACCELERATE_USE_CPU": "true"}
    if processes > 1:
        command = LaunchCommand(command=(str(out),), num_processes=processes, strategy="fsdp2", cpu=True)
        line, environment = launched(command, num_devices=0)
        arguments = [MODULE if word == "rlhf_lab.cli" else word for word in line]
    done = subprocess.run(
        [str(PYTHON), *arguments[1:]], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((out / "made.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return made_by(tmp_path_factory.mktemp("alone"))


class TestWithVLLM:
    pytestmark = with_vllm

    @pytest.mark.parametrize("name", SAME)
    def test_the_same_numbers_give_the_same_rollout(self, alone: dict[str, Any], name: str) -> None:
        assert alone["rollouts"][name] == 0

    def test_the_comparison_can_fail(self, alone: dict[str, Any]) -> None:
        """Of 72 responses, most differ where the engine has other weights."""
        assert alone["rollouts"]["stale"] > 36
        assert alone["rollouts"]["adapters matter"] > 36

    def test_texts_are_the_same_too(self, alone: dict[str, Any]) -> None:
        assert alone["rollouts"]["texts"] and alone["rollouts"]["best of n"]

    def test_threads_and_random_numbers_are_left_alone(self, alone: dict[str, Any]) -> None:
        assert alone["rollouts"]["leaves alone"]

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("unasked", "call follow(network) before sample"),
            ("too long", "tokens, and the engine holds 1024; shorten them, or raise cache_gb"),
            ("heads of 4", "vLLM cannot write with this LlamaForCausalLM here (RuntimeError"),
        ],
    )
    def test_what_it_cannot_do_is_said(self, alone: dict[str, Any], name: str, words: str) -> None:
        assert words in alone["rollouts"][name]

    def test_ppo_learns_the_same(self, alone: dict[str, Any]) -> None:
        assert_same(alone["training"])

    def test_two_processes_that_share_their_weights_change_nothing(self, alone: dict[str, Any], tmp_path: Path) -> None:
        two = made_by(tmp_path, 2)["training"]
        assert_same(two)
        ours, theirs = (training["histories"]["vllm"][-1] for training in (alone["training"], two))
        assert ours == pytest.approx(theirs, abs=1e-5)


def assert_same(training: dict[str, Any]) -> None:
    ours, theirs = training["histories"]["transformers"], training["histories"]["vllm"]
    assert len(ours) == 3
    for our, their in zip(ours, theirs, strict=True):
        assert our == pytest.approx(their, abs=1e-5)
    assert training["weights"] < 1e-5


def test_without_vllm_it_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"vLLM is not installed; install it with: pip install 'rlhf-lab\[vllm\]'"):
        VLLMBackend()


@pytest.mark.parametrize("settings", [{"cache_gb": 0.0}, {"max_sequences": 0}])
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        VLLMBackend(**settings)
