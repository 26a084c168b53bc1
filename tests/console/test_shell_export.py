"""Tables as CSV and JSON: what the page lists, whole, bounded, and never a formula."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client, RequestFactory

from governance.export import EXPORT_ROWS_MAX, spreadsheet_cell, table_export

COLUMNS = {"name": "name", "amount": "amount", "words": lambda row: row.name.upper()}


@dataclass(frozen=True)
class Row:
    name: str
    amount: Any


def export(rows: Any, query: Mapping[str, str], *, columns: Any = COLUMNS) -> Any:
    request = RequestFactory().get("/things", query)
    return table_export(request, name="things", columns=columns, rows=rows)


def cells(answer: Any) -> list[list[str]]:
    return list(csv.reader(io.StringIO(answer.content.decode())))


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "  =cmd|' /C calc'!A0"],
)
def test_a_text_that_a_spreadsheet_would_run_is_quoted(text: str) -> None:
    answer = export([Row(text, -1)], {"format": "csv"})
    (_, (name, amount, _)) = cells(answer)
    assert name == f"'{text}"
    assert amount == "-1"  # a number is no formula


def test_numbers_stay_numbers_and_the_unknown_stays_empty() -> None:
    assert spreadsheet_cell(-2.5) == -2.5
    assert spreadsheet_cell(Decimal("-0.10")) == Decimal("-0.10")
    assert spreadsheet_cell(None) == ""
    assert spreadsheet_cell(True) == "true"
    assert spreadsheet_cell("-2.5") == "'-2.5"
    (row,) = json.loads(export([Row("a", float("nan"))], {"format": "json"}).content)["rows"]
    assert row == {"name": "a", "amount": None, "words": "A"}


def test_a_separator_of_another_country_does_not_split_a_text() -> None:
    line = export([Row("a;=1+1", 3)], {"format": "csv"}).content.decode().splitlines()[1]
    assert line == '"a;=1+1",3,"A;=1+1"'


def test_headers_say_what_it_is() -> None:
    answer = export([Row("ü", 1)], {"format": "csv"})
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"].startswith('attachment; filename="things-2')
    assert answer["Content-Disposition"].endswith('.csv"')
    assert answer["Cache-Control"] == "no-store"
    assert "ü" in answer.content.decode("utf-8")


def test_a_cut_table_says_so() -> None:
    rows = (Row(str(number), number) for number in range(EXPORT_ROWS_MAX + 5))
    answer = export(rows, {"format": "json"})
    document = json.loads(answer.content)
    assert (document["count"], document["cut"]) == (EXPORT_ROWS_MAX, True)
    assert f"things-first-{EXPORT_ROWS_MAX}-" in answer["Content-Disposition"]
    whole = export([Row("a", 1)], {"format": "json"})
    assert json.loads(whole.content)["cut"] is False
    assert "first" not in whole["Content-Disposition"]


def test_only_the_table_that_was_asked_for_is_exported() -> None:
    assert export([], {}) is None
    assert export([], {"format": "csv", "table": "others"}) is None
    assert export([], {"format": "csv", "table": "things"}).status_code == 200
    assert export([], {"format": "xml"}).status_code == 422


def table_of(client: Client, path: str, **query: str) -> Any:
    answer = client.get(path, {"format": "json", **query})
    assert answer.status_code == 200, path
    assert answer["Content-Type"].startswith("application/json"), path
    return json.loads(answer.content)


@pytest.mark.django_db
def test_each_list_gives_its_rows_and_nobody_elses(tower: Any, signed_in: Any) -> None:
    from agents.models import Agent
    from goals.models import Goal

    tower.register("profiler")
    tower.register("optimizer")
    for index in range(60):  # more than a page
        tower.apply(f"goal-{index}")
    Goal.objects.filter(name="goal-7").update(namespace="other")
    Agent.objects.filter(name="optimizer").update(namespace="other")
    viewer, admin = signed_in("viewer"), signed_in("admin")
    assert table_of(viewer, "/goals")["count"] == 59
    assert table_of(admin, "/goals")["count"] == 60
    assert table_of(viewer, "/goals", q="goal-1")["count"] == 11
    assert [row["name"] for row in table_of(viewer, "/agents")["rows"]] == ["profiler"]
    journal = table_of(viewer, "/journal", action="goal.")["rows"]
    assert {row["action"] for row in journal} == {"goal.created"}
    for path in ("/approvals", "/releases", "/tokens", "/policies"):
        assert "rows" in table_of(viewer, path)
    for tab in ("ledger", "attempts", "decisions", "journal"):
        assert "rows" in table_of(viewer, f"/goals/default/goal-1/{tab}")


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/goals", "/agents", "/journal", "/policies"])
def test_each_list_links_to_its_exports_with_the_filter_kept(
    tower: Any, signed_in: Any, path: str
) -> None:
    tower.register("profiler")
    tower.apply("one")
    page = signed_in("viewer").get(path, {"page": "1", "namespace": "default"}).content.decode()
    assert "?format=csv&amp;namespace=default&amp;table=" in page
    assert "?format=json&amp;namespace=default&amp;table=" in page
