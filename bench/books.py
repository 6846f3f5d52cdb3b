"""PostgreSQL's own pace, by pgbench on the bench's database: what the ledger is measured against."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from bench.machine import HELPER_CORES, ROOT, SERVER_CORE, run
from bench.product import Surroundings

SQL = ROOT / "bench" / "sql"
ALL_CORES = HELPER_CORES | SERVER_CORE


def set_up(around: Surroundings, *, scale: int) -> None:
    command("psql", around, "-q", "-v", "ON_ERROR_STOP=1", "-f", str(SQL / "billing_schema.sql"))
    command("pgbench", around, "-i", "-q", "-s", str(scale))


def tpcb_per_s(around: Surroundings, *, clients: int, seconds: float) -> float:
    """Transactions a second of pgbench's TPC-B-like script."""
    return pace(around, clients, seconds)


def two_statements_per_s(around: Surroundings, *, clients: int, accounts: int, seconds: float) -> float:
    """Hold-and-settle pairs a second, as two bare statements without a client's work."""
    script = ("-D", f"accounts={accounts}", "-f", str(SQL / "billing_two_stmt.pgbench"))
    return pace(around, clients, seconds, *script)


def same_statements_per_s(around: Surroundings, *, clients: int, script: Path, seconds: float) -> float:
    """Pairs a second of a script that `bench.pairs` wrote: what the ledger sends, without the ledger."""
    return pace(around, clients, seconds, "-f", str(script))


def pace(around: Surroundings, clients: int, seconds: float, *script: str) -> float:
    said = command(
        "pgbench",
        around,
        "-n",
        "-T",
        f"{seconds:.0f}",
        "-c",
        str(clients),
        "-j",
        "2",
        "-M",
        "prepared",
        *script,
    )
    found = re.search(r"tps = ([\d.]+)", said)
    assert found is not None, said
    return float(found[1])


def command(name: str, around: Surroundings, *arguments: str) -> str:
    url = urlsplit(around.database_url)
    env = {
        **around.environment,
        "PGHOST": url.hostname or "127.0.0.1",
        "PGPORT": str(url.port or 5432),
        "PGUSER": url.username or "postgres",
        "PGPASSWORD": url.password or "",
        "PGDATABASE": url.path.lstrip("/"),
        "PGCONNECT_TIMEOUT": "5",
        "PGOPTIONS": "-c client_min_messages=warning",
    }
    return run([name, *arguments], env=env, cores=ALL_CORES, timeout_s=120)
