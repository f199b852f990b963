"""The same function on many jobs: in processes of this machine, or on the workers of a Dask cluster.

On Slurm, `dask-jobqueue` starts the workers; the address of its scheduler is all that is needed here.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from joblib import Parallel, delayed, parallel_config
from tqdm.auto import tqdm


def each(
    function: Callable[[Any], Any], jobs: Sequence[Any], *, num_jobs: int = 1, cluster: str = "", name: str
) -> Iterator[Any]:
    """`function(job)` of every job, in the order in which they end, with a progress bar.

    A job whose worker dies is run again on another, by Dask; what it writes, it must therefore write whole, and under a
    name of its own.

    Args:
        function: Importable by its name.
        jobs: Values that can be pickled.
        num_jobs: Processes of this machine; not read if there is a cluster.
        cluster: Address of a Dask scheduler.
        name: Shown before the bar.

    Raises:
        ValueError: Nobody answers at the address, or Dask is not installed.
    """
    with _workers(num_jobs, cluster) as number:
        results: Any = Parallel(n_jobs=number, return_as="generator_unordered")(delayed(function)(job) for job in jobs)
        yield from tqdm(results, total=len(jobs), desc=name, disable=not jobs)


@contextmanager
def _workers(num_jobs: int, cluster: str) -> Iterator[int]:
    if not cluster:
        with warnings.catch_warnings():
            # Between two jobs loky replaces a worker that has grown, and says so; nothing is lost. Where warnings are
            # errors, its own thread would die of it, and everybody wait for ever.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
            yield num_jobs
        return
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise ValueError("--cluster needs Dask; install it with: pip install 'rlhf-lab[cluster]'.") from error
    try:
        client = Client(cluster, timeout="20s")
    except OSError as error:
        raise ValueError(f"no Dask scheduler answers at {cluster}; check the address.") from error
    with client, parallel_config(backend="dask"):
        yield -1
