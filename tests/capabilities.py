"""What some tests need of the machine: how to see whether it is there, and how to add it.

A test says `@pytest.mark.needs("trl")`, or bears a marker that implies it. `tests/conftest.py` does the rest.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Capability:
    is_present: Callable[[], bool]
    how: str
    """To add it; completes 'how to add it: ...'."""
    marker: str = ""
    """A marker that implies the need."""
    may_be_absent: str = ""
    """Why RLHF_LAB_REQUIRE=all puts up with its absence; empty if it does not."""


def trl_python() -> Path:
    """The Python with the last TRL that has PPO."""
    return Path(os.environ.get("RLHF_LAB_TRL_PYTHON", ROOT / ".venv-trl" / "bin" / "python"))


def peers_python() -> Path:
    """The Python with the newest TRL, which the benchmarks have."""
    return Path(os.environ.get("RLHF_LAB_PEERS_PYTHON", ROOT / ".venv-peers" / "bin" / "python"))


def _nbgrader() -> bool:
    python = os.environ.get("RLHF_LAB_NBGRADER_PYTHON", ROOT / ".venv-nbgrader" / "bin" / "python")
    return Path(python).is_file()


def _vllm() -> bool:
    return Path(os.environ.get("RLHF_LAB_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python")).is_file()


def _real_data() -> bool:
    return Path(os.environ.get("RLHF_LAB_REAL_DATA", ROOT.parent / "shared" / "data" / "tldr_real.jsonl")).is_file()


def _gpu() -> bool:
    import torch  # Here, so that a run without such a test does not pay for it.

    return torch.cuda.is_available()


def chromium() -> str | None:
    """Chromium's path."""
    return os.environ.get("RLHF_LAB_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def postgresql() -> Path | None:
    """The folder of PostgreSQL's server programs."""
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.environ.get("PATH", "").split(os.pathsep))]
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


def _browser() -> bool:
    return chromium() is not None and all(importlib.util.find_spec(name) for name in ("playwright", "jupyterlab"))


def _postgresql() -> bool:
    has_server = bool(os.environ.get("RLHF_LAB_POSTGRESQL")) or postgresql() is not None
    return has_server and importlib.util.find_spec("psycopg") is not None


@functools.cache
def _mount() -> bool:
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@functools.cache
def _sandbox() -> bool:
    from rlhf_lab.course.sandbox import probe

    return probe() is None


CAPABILITIES = {
    "mount": Capability(
        is_present=_mount,
        how="run the tests as a root that may mount file systems",
        may_be_absent="most machines do not let tests mount a small or a read-only disk",
    ),
    "browser": Capability(
        is_present=_browser,
        how="install Chromium (`apt-get install chromium`), or let RLHF_LAB_CHROMIUM name its program",
    ),
    "postgresql": Capability(
        is_present=_postgresql,
        how="install PostgreSQL's server (`apt-get install postgresql`), or let RLHF_LAB_POSTGRESQL hold the URL of an "
        "empty database",
    ),
    "sandbox": Capability(
        is_present=_sandbox,
        how="install bubblewrap (`apt-get install bubblewrap`)",
        may_be_absent="some containers refuse the namespaces of which a sandbox is made",
    ),
    "trl": Capability(
        is_present=lambda: trl_python().is_file(),
        how="`make trl-oracle`, or let RLHF_LAB_TRL_PYTHON name the Python of an environment with TRL 1.12.0",
        marker="oracle",
    ),
    "peers": Capability(
        is_present=lambda: peers_python().is_file(),
        how="`make .venv-peers/.installed`, or let RLHF_LAB_PEERS_PYTHON name the Python of one with TRL 1.16.0",
        may_be_absent="what is compared is the same text in TRL 1.12.0, which is there",
    ),
    "nbgrader": Capability(
        is_present=_nbgrader,
        how="`make nbgrader`, or let RLHF_LAB_NBGRADER_PYTHON name the Python of an environment with nbgrader 0.9",
    ),
    "vllm": Capability(
        is_present=_vllm,
        how="`make vllm`, or let RLHF_LAB_VLLM_PYTHON name the Python of an environment with vLLM and this package",
    ),
    "real_data": Capability(
        is_present=_real_data,
        how="let RLHF_LAB_REAL_DATA name a JSONL file of posts with the columns of the TL;DR data",
    ),
    "gpu": Capability(
        is_present=_gpu,
        how="`make test-gpu` where torch.cuda.is_available()",
        marker="gpu",
        may_be_absent="no machine of the continuous integration has one",
    ),
}
