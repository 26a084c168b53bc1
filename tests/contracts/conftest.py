"""Fixtures of more than one suite of contracts."""

import os

import pytest

from lineage.telemetry import telemetry_from_url
from lineage.telemetry.base import Telemetry
from lineage.telemetry.clickhouse import ClickHouseTelemetry
from lineage.telemetry.memory import MemoryTelemetry
from tests.telemetry_store import StoreProcess, store  # noqa: F401 - a fixture


@pytest.fixture(params=["memory", "store", "clickhouse"])
def telemetry(request: pytest.FixtureRequest) -> Telemetry:
    if request.param == "memory":
        made: Telemetry = MemoryTelemetry()
    elif request.param == "store":
        running: StoreProcess = request.getfixturevalue("store")
        made = ClickHouseTelemetry(
            host="127.0.0.1", port=running.port, user="default", password=lambda: running.token
        )
    else:
        url = os.environ.get("CLICKHOUSE_TEST_URL")
        if not url:
            pytest.skip("needs ClickHouse: set CLICKHOUSE_TEST_URL=clickhouse://user:pw@host/db")
        made = telemetry_from_url(url)
    made.ensure_schema()
    return made
