import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capabilities import postgresql


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an empty database on a PostgreSQL server that is started for the tests, or of RLHF_LAB_POSTGRESQL."""
    if url := os.environ.get("RLHF_LAB_POSTGRESQL"):
        yield url
        return
    programs = postgresql()
    assert programs is not None
    # PostgreSQL refuses to run as root, so there another user runs it, who must reach the folder.
    base = Path(tempfile.mkdtemp(prefix="rlhf-lab-postgresql-"))
    by = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if by:
        shutil.chown(base, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        command = [*by, str(programs / program), "-D", str(base / "data"), *arguments]
        done = subprocess.run(command, cwd=base, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout

    run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C")
    options = f"-p {port} -k {base} -c listen_addresses=127.0.0.1 -c max_connections=200"
    run("pg_ctl", "start", "--wait", "--log", str(base / "log"), "-o", options)
    yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    run("pg_ctl", "stop", "--wait", "--mode=immediate")
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """The database's URL, the database empty."""
    import psycopg

    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgresql_server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a store, in SQLite and in PostgreSQL."""
    return str(tmp_path / "labels.sqlite") if request.param == "sqlite" else request.getfixturevalue("postgresql_url")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
