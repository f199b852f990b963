"""Prints the lines that an agent clears in each game of Tetris, taught by a simulated trainer, with and without credit.

Example: .venv/bin/python -m benchmarks.tetris --seeds 10 --pieces-per-second 1 2
"""

import argparse
from dataclasses import replace

import torch

from rlhf_lab.control.tamer import TAMERConfig
from rlhf_lab.control.tetris import teach_tetris, tetris_config


def table(config: TAMERConfig, options: argparse.Namespace) -> str:
    """A row for each seed."""
    lines = ["| seed | " + " | ".join(f"game {game + 1}" for game in range(options.games)) + " |"]
    lines.append("|---" * (options.games + 1) + "|")
    for seed in range(options.seeds):
        rows = teach_tetris(
            config, attention=options.attention, num_games=options.games, max_steps=options.pieces, seed=seed
        )
        lines.append(f"| {seed} | " + " | ".join(f"{row['return']:.0f}" for row in rows) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read the options, and play."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--games", type=int, default=5)
    parser.add_argument("--pieces", type=int, default=500, help="after which a game is ended")
    parser.add_argument("--pieces-per-second", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--attention", type=float, default=0.5, help="share of the drops that are spoken of")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for pace in options.pieces_per_second:
        credited = replace(tetris_config(), steps_per_second=pace)
        for name, config in (("with", credited), ("without", replace(credited, earliest=0.0, latest=0.0))):
            print(f"\n{pace:g} pieces a second, {name} credit assignment\n\n{table(config, options)}")  # noqa: T201


if __name__ == "__main__":
    main()
