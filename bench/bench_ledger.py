"""How many reserve + settle pairs a second the ledger commits, on SQLite and on PostgreSQL."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.with_servers import MissingServer, servers

ROOT = Path(__file__).resolve().parents[1]


def run() -> list[dict[str, object]]:
    """Per database and number of writers: pairs a second, and the ratio to plain commits."""
    with tempfile.TemporaryDirectory(prefix="bench-ledger-") as directory:
        rows = _rows("SQLite", f"sqlite:///{directory}/bench.sqlite3")
    try:
        # Durable commits, as SQLite makes them: each waits for the disk.
        with servers(is_durable=True) as environment:
            return rows + _rows("PostgreSQL", environment["DATABASE_URL"])
    except MissingServer as missing:
        return [*rows, {"name": f"PostgreSQL: skipped: {missing}"}]


def _rows(database: str, url: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.ledger_pairs"],
        cwd=ROOT, env={**os.environ, "DATABASE_URL": url}, stdout=subprocess.PIPE, text=True,
        check=True,
    )  # fmt: skip
    figures = json.loads(done.stdout.splitlines()[-1])
    rows: list[dict[str, object]] = []
    for name, value in figures.items():
        work, _, writers = name.partition(":")
        if work != "pair":
            continue
        peer = figures[f"plain:{writers}"]
        rows.append(
            {
                "name": f"reserve + settle, {database}, {writers} at once",
                "value": round(value, 1),
                "unit": "pairs/s",
                "peer": f"{peer:.1f}/s (two plain INSERT + UPDATE commits)",
                "ratio": round(value / peer, 3),
            }
        )
    return rows


if __name__ == "__main__":
    for line in run():
        print(line)
