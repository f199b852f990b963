"""The command line: a user's mistake is one clear sentence, and leaves earlier results as they were."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_lab import cli
from rlhf_lab.data.world import World
from tests.capabilities import ROOT


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence with which a command is refused."""
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") == 1
    return captured.err


def posts_file(folder: Path, **renamed: str) -> Path:
    """Ten posts in the real schema, with some columns renamed."""
    rows = []
    for post in World().posts(0, "cli", 10):
        row = {"prompt": post.query, "completion": f" Told in brief: {post.title}"}
        rows.append({renamed.get(key, key): value for key, value in row.items()})
    path = folder / "posts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_unknown_command_or_flag_ends_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["tldrr"], ["tldr", "--sclae", "tiny"], []):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2
    assert "sclae" in capsys.readouterr().err


def refused_setting(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the parser says about a setting that cannot be meant, as one line without its box."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return " ".join(message.replace("│", " ").split())


def test_an_unknown_scale_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused_setting(capsys, "tldr", "--scale", "huge", "--out", str(tmp_path / "run"))
    assert "'huge'" in message
    assert "tiny, laptop" in message
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"seed": 7, "scale": "tiny"}))
    assert "holds a different run" in refused(capsys, "tldr", "--scale", "tiny", "--out", str(folder))
    assert json.loads((folder / "config.json").read_text()) == {"seed": 7, "scale": "tiny"}


def test_a_folder_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    assert "holds no run" in refused(capsys, "tldr", "--scale", "tiny", "--out", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_model_without_network_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("tldr", "--scale", "tiny", "--model", "nobody/no-model", "--out", str(tmp_path / "run"))
    assert "nobody/no-model" in refused(capsys, *arguments)


def test_real_data_needs_comparisons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = posts_file(tmp_path)
    message = refused_setting(capsys, "tldr", "--scale", "tiny", "--data", str(path), "--out", str(tmp_path / "run"))
    assert "--comparisons" in message


def test_a_misspelt_column_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = posts_file(tmp_path, completion="complation")
    arguments = ("--data", str(path), "--comparisons", str(path), "--out", str(tmp_path / "run"))
    assert "complation" in refused(capsys, "tldr", "--scale", "tiny", *arguments)


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "nothing.jsonl")
    arguments = ("--data", missing, "--comparisons", missing, "--out", str(tmp_path / "run"))
    assert "nothing.jsonl" in refused(capsys, "tldr", "--scale", "tiny", *arguments)


def test_a_full_disk_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results.json")

    monkeypatch.setattr("rlhf_lab.records.os.replace", full)
    message = refused(capsys, "tldr", "--scale", "tiny", "--out", str(tmp_path / "run"))
    assert "the disk is full" in message
    assert not list(tmp_path.rglob("config.json"))


def test_an_unknown_size_is_refused_before_texts_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhf_lab.experiments.pretraining.pretraining_texts", None)  # To call it would be an error.
    assert "'huge'" in refused(capsys, "pretrain", "--size", "huge", "--out", str(tmp_path / "run"))


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "rlhf_lab.cli", "release", "--check"]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_help_names_every_command() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "rlhf_lab.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(command in shown.stdout for command in ("tldr", "pretrain", "results", "course-models", "labels"))
