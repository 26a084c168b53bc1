"""TELEMETRY_URL chooses the adapter and says what it cannot read."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from lineage.telemetry import telemetry_from_url
from lineage.telemetry.clickhouse import ClickHouseTelemetry
from lineage.telemetry.memory import MemoryTelemetry


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory:", MemoryTelemetry),
        ("embedded:", ClickHouseTelemetry),
        ("clickhouse://u:p%40ss@db.example:9000/spans?secure=1", ClickHouseTelemetry),
        ("clickhouse://[::1]", ClickHouseTelemetry),
    ],
)
def test_known_forms_make_an_adapter_and_open_nothing(url: str, kind: type) -> None:
    assert type(telemetry_from_url(url)) is kind


@pytest.mark.parametrize(
    "url",
    [
        "", "postgres://x", "clickhouse://", "clickhouse://h:port/db", "clickhouse://h/db?secure=2",
        "clickhouse://h/db?sekure=1", "clickhouse://h/db?x",
    ],
)  # fmt: skip
def test_other_forms_name_the_variable_and_what_it_accepts(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"TELEMETRY_URL must be 'embedded:'.*"):
        telemetry_from_url(url)


def test_a_password_never_shows_in_an_error() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        telemetry_from_url("clickhouse://user:hunter2@h:port/db")
    assert "hunter2" not in str(caught.value)
