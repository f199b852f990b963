"""`rlhf-lab`: the kit from the command line, built from the config dataclasses."""

import errno
import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Rebuild a base model from the embedded world; the same command continues what was interrupted."""

    size: str
    """small, medium or large."""
    out: str
    """Folder of the run; the model is written to its `result`."""
    num_steps: int = 0
    """Updates; 0 takes the number that made the shipped model."""
    seed: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; a user's error is one sentence on stderr and exit status 2.

    Args:
        argv: Arguments after the program's name; by default those of the process.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv[:1] == ["launch"]:
            from rlhf_lab.launch import run_launch

            return run_launch(argv[1:])
        quick = _QUICK.get(argv[0]) if argv else None
        return _say(quick(argv) if quick else _run(_command(argv)))
    except (ValueError, OSError) as error:
        print(f"rlhf-lab: {_sentence(error)}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("\nrlhf-lab: interrupted; the same command continues.", file=sys.stderr)  # noqa: T201
        return 130


def _say(result: str) -> int:
    try:
        print(result, flush=True)  # noqa: T201
    except BrokenPipeError:
        # Who read it has seen enough, as `| head` has. Nothing more is to be flushed there when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # As a shell says of what SIGPIPE has ended.
    return 0


def _command(argv: Sequence[str]) -> object:
    """What the arguments ask for."""
    from rlhf_lab.course.commands import GradeCommand, ReleaseCommand, SampleClassCommand
    from rlhf_lab.experiments.course_models import CourseModelsConfig
    from rlhf_lab.experiments.results import ResultsConfig
    from rlhf_lab.experiments.sweep import SweepConfig
    from rlhf_lab.experiments.systems.command import SystemsConfig
    from rlhf_lab.experiments.tldr import TLDRConfig
    from rlhf_lab.labeling.commands import LabelsCommand
    from rlhf_lab.launch import LaunchCommand

    commands = (
        Annotated[TLDRConfig, tyro.conf.subcommand("tldr")]
        | Annotated[PretrainConfig, tyro.conf.subcommand("pretrain")]
        | Annotated[ResultsConfig, tyro.conf.subcommand("results")]
        | Annotated[SweepConfig, tyro.conf.subcommand("sweep")]
        | Annotated[SystemsConfig, tyro.conf.subcommand("systems")]
        | Annotated[CourseModelsConfig, tyro.conf.subcommand("course-models")]
        # For the help; those of `_QUICK` have a way of their own.
        | Annotated[LabelsCommand, tyro.conf.subcommand("labels")]
        | Annotated[ReleaseCommand, tyro.conf.subcommand("release")]
        | Annotated[GradeCommand, tyro.conf.subcommand("grade")]
        | Annotated[SampleClassCommand, tyro.conf.subcommand("sample-class")]
        | Annotated[LaunchCommand, tyro.conf.subcommand("launch")]
    )
    return tyro.cli(commands, args=argv, prog="rlhf-lab", config=(tyro.conf.OmitSubcommandPrefixes,))  # type: ignore[call-overload]


def _labels(argv: Sequence[str]) -> str:
    """A command about labels, which need not wait for PyTorch."""
    from rlhf_lab.labeling.commands import Action, run_labels

    config = (tyro.conf.OmitSubcommandPrefixes,)
    return run_labels(tyro.cli(Action, args=argv[1:], prog="rlhf-lab labels", config=config))  # type: ignore[call-overload]


def _course(argv: Sequence[str]) -> str:
    """Commands of the course; PyTorch is loaded where answers are judged, and not here."""
    from rlhf_lab.course import commands

    command, run = {
        "release": (commands.ReleaseCommand, commands.run_release),
        "grade": (commands.GradeCommand, commands.run_grade),
        "sample-class": (commands.SampleClassCommand, commands.run_sample_class),
    }[argv[0]]
    return run(tyro.cli(command, args=argv[1:], prog=f"rlhf-lab {argv[0]}"))  # type: ignore[arg-type]


_QUICK = {"labels": _labels, "release": _course, "grade": _course, "sample-class": _course}
"""Commands that need not wait for PyTorch."""


def _run(command: object) -> str:
    """Do what is asked; returns the line that says where the result is."""
    import datasets
    import transformers

    from rlhf_lab.experiments.course_models import CourseModelsConfig, make_course_models
    from rlhf_lab.experiments.pretraining import LOSS_FILE, pretrain_base
    from rlhf_lab.experiments.results import ResultsConfig, run_results
    from rlhf_lab.experiments.sweep import SweepConfig, run_sweep
    from rlhf_lab.experiments.systems.command import SystemsConfig, run_systems
    from rlhf_lab.experiments.tldr import TLDRConfig, run_tldr
    from rlhf_lab.models import checkpoint_folder

    # One bar a stage; the libraries' own would tear it apart.
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    if isinstance(command, TLDRConfig):
        if command.scale == "gpu" or command.model:
            _check_memory(command)
        run_tldr(command)
        return f"Report: {command.out}/report.html"
    if isinstance(command, ResultsConfig):
        return f"Results: {run_results(command)}"
    if isinstance(command, SweepConfig):
        return f"Table: {run_sweep(command)}"
    if isinstance(command, SystemsConfig):
        return f"Results: {run_systems(command)}"
    if isinstance(command, CourseModelsConfig):
        return f"Models: {make_course_models(command)}"
    assert isinstance(command, PretrainConfig)
    folder, loss = pretrain_base(command.size, command.out, num_steps=command.num_steps, seed=command.seed)
    shipped = checkpoint_folder() / command.size / LOSS_FILE
    beside = ""
    if shipped.exists():
        beside = f"; of the model that ships: {json.loads(shipped.read_text(encoding='utf-8'))['held_out_loss']:.4f}"
    return f"Model: {folder} (loss on other text: {loss:.4f} nats a token{beside})"


def _check_memory(command: Any) -> None:
    """Say what the job will need, before any long work; what does not fit is refused."""
    from rlhf_lab.experiments.sizing import memory_of_job
    from rlhf_lab.runs import Run

    run = Run()
    settings = {"lora": command.lora, "dtype": command.dtype(run), "run": run, "backend": command.writer}
    for estimate in memory_of_job(command.model, command.scale, **settings):
        if run.is_main:
            print(estimate, file=sys.stderr)  # noqa: T201
        estimate.check()


def _sentence(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename or 'writing'}); free some space, and the same command continues."
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
