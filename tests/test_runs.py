"""A run: one folder for one run, random numbers without state, and nothing lost or doubled when it is cut short."""

import dataclasses
import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlhf_lab.records import replace_folder, write_atomic
from rlhf_lab.runs import Run, Stateful, configured
from tests.capabilities import ROOT


class Sum:
    """Something to train: each step adds a random number."""

    def __init__(self) -> None:
        self.value = torch.zeros(())

    def add(self, run: Run, step: int) -> None:
        self.value = self.value + torch.rand((), generator=run.rng("add", step))

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


class Killed(Exception):
    """Stands for a kill in the middle of a step."""


def train(run: Run, num_steps: int = 7, *, stop: int | None = None) -> Sum:
    """Every step logs and keeps a sample; it is cut short after step `stop` has done so."""
    total = Sum()
    for step in run.steps(num_steps, {"sum": total}, name="test"):
        total.add(run, step)
        run.log(step, {"sum": total.value.item()})
        run.keep_sample(step, {"response": f"naïve {step}"})
        if step == stop:
            raise Killed
    return total


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    Run(tmp_path / "run", seed=1, identity={"kl_coef": 0.05, "sizes": (1, 2)})
    again = Run(tmp_path / "run", seed=1, identity={"kl_coef": 0.05, "sizes": (1, 2)})
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 1, "kl_coef": 0.05, "sizes": [1, 2]}
    assert again.folder == tmp_path / "run"


@pytest.mark.parametrize(
    ("seed", "identity", "message"),
    [
        (2, {"kl_coef": 0.05}, "seed is 1 there, 2 here"),
        (1, {"kl_coef": 0.1}, r"kl_coef is 0\.05 there, 0\.1 here"),
        (1, {}, r"kl_coef is 0\.05 there, None here"),
        (1, {"kl_coef": 0.05, "size": "small"}, "size is None there, 'small' here"),
    ],
)
def test_another_run_s_folder_is_refused_and_left_alone(
    seed: int, identity: dict[str, Any], message: str, tmp_path: Path
) -> None:
    Run(tmp_path, seed=1, identity={"kl_coef": 0.05})
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match=rf"holds a different run \({message}\); choose another folder") as caught:
        Run(tmp_path, seed=seed, identity=identity)
    assert str(tmp_path) in str(caught.value)
    assert (tmp_path / "config.json").read_text() == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        Run(tmp_path)
    assert leftovers(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_and_a_new_one_are_taken(tmp_path: Path) -> None:
    Run(tmp_path)
    Run(tmp_path / "a" / "b")
    assert (tmp_path / "config.json").is_file()
    assert (tmp_path / "a" / "b" / "config.json").is_file()


def test_a_run_in_memory_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run()
    train(run)
    assert [row["step"] for row in run.history] == list(range(7))
    assert list(tmp_path.iterdir()) == []


def draws(run: Run, purpose: str, step: int) -> list[float]:
    return torch.rand(4, generator=run.rng(purpose, step)).tolist()


def test_random_numbers_depend_on_seed_purpose_and_step_alone() -> None:
    run = Run(seed=3)
    first = draws(run, "sample", 5)
    torch.manual_seed(99)
    draws(run, "sample", 4)
    draws(run, "shuffle", 5)
    assert draws(run, "sample", 5) == first
    assert draws(Run(seed=3), "sample", 5) == first
    others = [draws(Run(seed=4), "sample", 5), draws(run, "shuffle", 5), draws(run, "sample", 6)]
    assert len({tuple(numbers) for numbers in [first, *others]}) == 4


def test_random_numbers_leave_the_global_ones_alone() -> None:
    before = torch.get_rng_state()
    draws(Run(seed=3), "sample", 5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("num_rows", "batch_size"), [(10, 5), (10, 3), (3, 7), (1, 2)])
def test_batches_take_each_row_once_an_epoch(num_rows: int, batch_size: int) -> None:
    run = Run(seed=1)
    taken = [row for step in range(num_rows * 3) for row in run.batch_rows(step, num_rows, batch_size)]
    epochs = [taken[start : start + num_rows] for start in range(0, len(taken), num_rows)]
    assert all(sorted(epoch) == list(range(num_rows)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1 or num_rows == 1
    assert run.batch_rows(2, num_rows, batch_size) == taken[2 * batch_size : 3 * batch_size]


def test_no_rows_make_no_batch() -> None:
    with pytest.raises(ValueError, match="the dataset is empty; give at least one row"):
        Run().batch_rows(0, 0, 4)


def test_processes_share_a_batch_without_loss_or_overlap() -> None:
    run = Run()
    parts = []
    for index in range(3):
        run.accelerator = SimpleNamespace(num_processes=3, process_index=index)  # type: ignore[assignment]
        parts += list(range(12))[run.share(12)]
    assert parts == list(range(12))
    with pytest.raises(ValueError, match="a batch of 10 does not divide among 3 processes"):
        run.share(10)


def test_stages_have_folders_and_seeds_of_their_own(tmp_path: Path) -> None:
    run = Run(tmp_path, seed=1, checkpoint_every=3)
    sft, ppo = run.stage("sft"), run.stage("ppo", checkpoint_every=9)
    assert (sft.folder, ppo.folder) == (tmp_path / "sft", tmp_path / "ppo")
    assert (sft.checkpoint_every, ppo.checkpoint_every) == (3, 9)
    assert len({run.seed, sft.seed, ppo.seed, Run(seed=2).stage("sft").seed}) == 4
    assert Run(seed=1).stage("sft").seed == sft.seed
    assert Run(seed=1).stage("sft").folder is None


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 5, 6])
def test_a_run_that_was_cut_short_ends_as_if_it_had_not_been(stop: int, tmp_path: Path) -> None:
    assert isinstance(Sum(), Stateful)
    whole = train(Run(tmp_path / "whole", seed=1, checkpoint_every=2))
    with pytest.raises(Killed):
        train(Run(tmp_path / "cut", seed=1, checkpoint_every=2), stop=stop)
    run = Run(tmp_path / "cut", seed=1, checkpoint_every=2)
    assert torch.equal(train(run).value, whole.value)
    assert [row["step"] for row in run.history] == list(range(7))
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert [row["step"] for row in rows(tmp_path / "cut" / name)] == list(range(7))
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_steps_before_the_checkpoint_are_not_done_again(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(Run(tmp_path, checkpoint_every=2), stop=4)
    assert checkpoint(tmp_path)["step"] == 4
    assert list(Run(tmp_path, checkpoint_every=2).steps(7, {"sum": Sum()}, name="test")) == [4, 5, 6]
    assert list(Run(tmp_path, checkpoint_every=2).steps(7, {"sum": Sum()}, name="test")) == []


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(Run(tmp_path, checkpoint_every=2), stop=4)
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write('{"step": 5, "su')
    train(Run(tmp_path, checkpoint_every=2))
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert [row["step"] for row in rows(tmp_path / name)] == list(range(7))


def test_samples_are_kept_by_their_step_whatever_they_hold(tmp_path: Path) -> None:
    """Any number of samples a step, none at some, and characters that end a line for Python only."""
    text = "one\u2028two\u2029three\x85four\x0cfive naïve"

    def samples(stop: int | None) -> None:
        for step in Run(tmp_path, checkpoint_every=2).steps(6, {"sum": Sum()}, name="test"):
            for index in range(0 if step == 1 else 2):
                Run(tmp_path).keep_sample(step, {"response": text, "index": index})
            if step == stop:
                raise Killed

    with pytest.raises(Killed):
        samples(stop=4)
    with (tmp_path / "samples.jsonl").open("ab") as file:
        file.write('{"step": 1, "response": "naï'.encode()[:-1])
    samples(stop=None)
    found = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [(row["step"], row["index"]) for row in found] == [(step, i) for step in (0, 2, 3, 4, 5) for i in (0, 1)]
    assert {row["response"] for row in found} == {text}


@pytest.mark.parametrize("below", ["", "run/sft"])
def test_a_file_is_no_folder(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"file is a file, and a run needs a folder; choose another name"):
        Run(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b'{"seed": 0, "kl', b"[1, 2]", b"3", b"\xff\xfe"])
def test_a_damaged_config_is_named_with_its_mend(content: bytes, tmp_path: Path) -> None:
    Run(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is damaged .*; delete .*, or choose another folder") as caught:
        Run(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)
    assert (tmp_path / "config.json").read_bytes() == content


def test_a_checkpoint_that_does_not_fit_is_named_with_its_mend(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(Run(tmp_path, checkpoint_every=2), stop=4)
    content = checkpoint(tmp_path)
    content["state"] = {"other": {}}
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint\.pt does not fit this stage \(KeyError\): .* delete it to do"):
        train(Run(tmp_path, checkpoint_every=2))


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_a_damaged_checkpoint_is_named_with_its_mend(part: float, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(Run(tmp_path, checkpoint_every=2), stop=4)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged .*; delete it to do this stage again") as caught:
        train(Run(tmp_path, checkpoint_every=2))
    assert str(path) in str(caught.value)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    path.unlink()
    assert torch.equal(train(Run(tmp_path)).value, train(Run()).value)


def strict_rows(path: Path) -> list[dict[str, Any]]:
    """The rows, by a reader who knows no NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_numbers_that_are_not_finite_are_null_in_the_files_and_themselves_in_memory(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step in run.steps(3, {"sum": Sum()}, name="test"):
        run.log(step, {"kl": (math.nan, math.inf, 2.0)[step]})
        run.keep_sample(step, {"response": "a", "score": (-math.inf, math.nan, 1.0)[step]})
    for _ in range(2):
        assert [row["kl"] for row in strict_rows(tmp_path / "metrics.jsonl")] == [None, None, 2.0]
        assert [row["score"] for row in strict_rows(tmp_path / "samples.jsonl")] == [None, None, 1.0]
        run = Run(tmp_path)
        assert list(run.steps(3, {"sum": Sum()}, name="test")) == []
    assert [str(row["kl"]) for row in run.history] == ["nan", "inf", "2.0"]


def test_files_are_utf_8_in_every_locale(tmp_path: Path) -> None:
    code = (
        "import sys; from rlhf_lab.runs import Run; run = Run(sys.argv[1], identity={'name': 'na\\u00efve'});"
        "list(run.steps(1, {}, name='test')); run.keep_sample(0, {'response': 'na\\u00efve \\u2028'});"
        "Run(sys.argv[1], identity={'name': 'na\\u00efve'}); list(run.steps(1, {}, name='test'))"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, cwd=ROOT, check=True)
    assert strict_rows(tmp_path / "samples.jsonl") == [{"step": 0, "response": "naïve \u2028"}]


def test_a_full_disk_s_error_carries_the_file_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    with pytest.raises(OSError, match=r"No space left.*big\.json") as caught, monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        write_atomic(tmp_path / "big.json", "{}")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "big.json"))
    assert leftovers(tmp_path) == []
    for name, write in (
        ("metrics.jsonl", lambda: run.log(0, {"loss": 1.0})),
        ("samples.jsonl", lambda: run.keep_sample(0, {"response": "a"})),
    ):
        with pytest.raises(OSError, match="No space left") as caught, monkeypatch.context() as patch:
            patch.setattr(Path, "open", no_space)
            write()
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / name))


def test_a_finished_stage_s_checkpoint_can_be_forgotten(tmp_path: Path) -> None:
    run = Run(tmp_path)
    train(run)
    run.clear_checkpoint()
    run.clear_checkpoint()
    assert not (tmp_path / "checkpoint.pt").exists()
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == list(range(7))


def torn_save(content: Any, file: Any) -> None:
    file.write(b"PK\x03\x04 half of a checkpoint")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("owner", "name", "failure"),
    [(torch, "save", torn_save), (os, "fsync", no_space), (os, "replace", no_space)],
    ids=["while serializing", "while writing", "while replacing"],
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_one(
    owner: Any, name: str, failure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(Run(tmp_path / "whole", seed=1))
    folder = tmp_path / "cut"
    with pytest.raises(Killed):
        train(Run(folder, seed=1, checkpoint_every=2), stop=3)
    earlier = (folder / "checkpoint.pt").read_bytes()
    run = Run(folder, seed=1, checkpoint_every=2)
    total = Sum()
    steps = run.steps(7, {"sum": total}, name="test")
    for step in (2, 3):
        assert next(steps) == step
        total.add(run, step)
        run.log(step, {"sum": total.value.item()})
    monkeypatch.setattr(owner, name, failure)
    with pytest.raises(OSError, match="No space left on device") as caught:
        next(steps)
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    assert (folder / "checkpoint.pt").read_bytes() == earlier
    assert checkpoint(folder)["step"] == 2
    assert leftovers(folder) == []
    again = Run(folder, seed=1, checkpoint_every=2)
    assert torch.equal(train(again).value, whole.value)
    assert [row["step"] for row in rows(folder / "metrics.jsonl")] == list(range(7))


def test_a_half_written_copy_of_a_killed_process_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(Run(tmp_path, checkpoint_every=2), stop=3)
    (tmp_path / ".checkpoint.pt.abc123").write_bytes(b"PK half")
    assert next(iter(Run(tmp_path, checkpoint_every=2).steps(7, {"sum": Sum()}, name="test"))) == 2


def test_atomic_writing_replaces_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, "naïve")
    write_atomic(path, b"bytes")
    assert path.read_bytes() == b"bytes"
    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "later")
    assert path.read_bytes() == b"bytes"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "part").mkdir()
        (tmp_path / "part" / name).touch()
        replace_folder(tmp_path / "part", tmp_path / "model")
        assert [path.name for path in (tmp_path / "model").iterdir()] == [name]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    kl_coef: float = 0.05
    num_steps: int = 10

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be 1 or more, not {self.num_steps}.")


def test_settings_are_replaced_and_misspelt_ones_refused() -> None:
    assert configured(Config(), None, {"num_steps": 3}) == Config(num_steps=3)
    assert configured(Config(), Config(kl_coef=0.1), {"num_steps": 3}) == Config(kl_coef=0.1, num_steps=3)
    assert configured(Config(), None, {}) == Config()
    with pytest.raises(ValueError, match="Config has no field kl_coeff; it has kl_coef, num_steps"):
        configured(Config(), None, {"kl_coeff": 0.1})
    with pytest.raises(ValueError, match="num_steps must be 1 or more, not 0"):
        configured(Config(), None, {"num_steps": 0})


def test_a_kill_while_the_folder_was_claimed_leaves_it_free(tmp_path: Path) -> None:
    (tmp_path / ".config.json.abc123").write_text('{"se')
    Run(tmp_path, seed=3)
    assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 3}
