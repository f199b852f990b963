"""`rlhf-lab`: the kit from the command line, built from the config dataclasses."""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class PretrainCommand:
    """Rebuild a base model from the embedded world."""

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
    # Imported here, so that `--help` of a subcommand is the only thing that pays for torch.
    from rlhf_lab.experiments.tldr import TLDRConfig

    commands = (
        Annotated[TLDRConfig, tyro.conf.subcommand("tldr")]
        | Annotated[PretrainCommand, tyro.conf.subcommand("pretrain")]
    )
    try:
        command = tyro.cli(commands, args=argv, prog="rlhf-lab", config=(tyro.conf.OmitSubcommandPrefixes,))  # type: ignore[call-overload]
        _run(command)
    except (ValueError, OSError) as error:
        print(f"rlhf-lab: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("rlhf-lab: interrupted; the same command continues.", file=sys.stderr)  # noqa: T201
        return 130
    return 0


def _run(command: object) -> None:
    from rlhf_lab.experiments.tldr import TLDRConfig, run_tldr

    warnings.filterwarnings("ignore", category=FutureWarning)
    if isinstance(command, TLDRConfig):
        report = run_tldr(command)
        print(f"Report: {report}")  # noqa: T201
