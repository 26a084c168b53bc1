"""The lineage explorer: each question answered, the graph behind it, and what stays hidden."""

import re
from typing import Any

import pytest
from django.test.html import parse_html

from goals.models import Release
from lineage.domain import NodeKind, NodeRef, Relation
from lineage.models import Artifact, Edge
from lineage.selectors import FAN_OUT, FAN_OUT_OPENED, Direction, Walk, neighbourhood
from lineage.services.graph import link_all
from tests.goals.provenance import as_, provenance, push

pytestmark = pytest.mark.django_db


def ask(browser: Any, key: str, of: str, **more: str) -> tuple[int, str]:
    """Status and the text of the answer."""
    answer = browser.get("/lineage", {"ask": key, "of": of, **more})
    return answer.status_code, answer.content.decode()


def sentence(page: str) -> str:
    found = re.search(r'<p class="answer-sentence">(.*?)</p>', page, re.S)
    assert found, page
    return re.sub(r"<[^>]+>", "", found[1]).strip()


def test_each_question_is_answered_in_a_sentence(tower: Any, people: Any) -> None:
    made = provenance(tower)
    browser = as_(people, "viewer")
    status, page = ask(browser, "approved", "checkout/canary")
    assert status == 200
    assert sentence(page) == (
        "checkout/canary #1 was approved by nobody: policy starter did not ask for a human. "
        "It was asked for by agent profiler."
    )
    _, page = ask(browser, "goals", "rides")
    assert sentence(page) == (
        f"1 Goal used rides ({made.dataset.digest[7:19]}): reduce-p99-latency."
    )
    _, page = ask(browser, "touched", made.dataset.digest[7:20])
    assert sentence(page).endswith(
        "touched 1 Goal, 1 agent run, 2 other artifacts, 1 release. "
        "checkout/canary #1 rests on it now."
    )
    _, page = ask(browser, "evidence", made.evidence.digest)
    assert "1 release rests on ab-result" in sentence(page)
    _, page = ask(browser, "changed", "checkout/canary")
    assert "1 release changed checkout/canary: from nothing to" in sentence(page)
    _, page = ask(browser, "changed", "checkout/canary", time="2020-01-01..2020-02-01")
    assert sentence(page) == "Nothing changed checkout/canary in that time."
    status, page = ask(browser, "around", f"release:{made.release.uid}")
    assert (status, f"serves {made.model.digest[7:19]}" in page) == (200, True)


def test_an_approved_release_names_who_approved_it(tower: Any, people: Any) -> None:
    from tests.goals.test_releases import answer, held_up
    from tests.goals.test_releases import ask as wanted

    held_up(tower)
    from goals.services.releases import request_release

    model = push(b"new", name="risk")
    waiting = request_release(wanted(model, environment="production"))
    browser = as_(people, "viewer")
    _, page = ask(browser, "approved", "checkout/production")
    assert "is approved by nobody yet: its approval waits." in sentence(page)
    answer(tower, waiting, approve=True)
    _, page = ask(browser, "approved", model.digest)
    assert "was approved by approver on 20" in sentence(page)
    assert "Looked at it." in sentence(page)


def test_what_nobody_knows_is_said_at_the_field(tower: Any, people: Any) -> None:
    browser = as_(people, "viewer")
    status, page = ask(browser, "approved", "no/such")
    assert status == 422
    assert "No release that you may see is “no/such”" in page
    assert 'aria-invalid="true"' in page
    for key in ("goals", "touched", "evidence", "changed", "around"):
        assert ask(browser, key, "<script>")[0] == 422


def test_another_namespace_is_as_good_as_missing(tower: Any, people: Any) -> None:
    made = provenance(tower)
    Artifact.objects.update(namespace="other")
    Release.objects.update(namespace="other")
    browser = as_(people, "viewer")
    for key, of in (
        ("approved", "checkout/canary"),
        ("approved", str(made.release.uid)),
        ("touched", made.model.digest),
        ("around", f"release:{made.release.uid}"),
        ("around", f"artifact:{made.model.digest}"),
        ("changed", "checkout/canary"),
    ):
        assert ask(browser, key, of)[0] == 422, (key, of)
    for key in ("approved", "goals", "touched", "evidence", "changed"):
        names = browser.get("/lineage/names", {"ask": key, "of": ""})
        assert "<option" not in names.content.decode()


def test_fields_are_completed(tower: Any, people: Any) -> None:
    provenance(tower)
    browser = as_(people, "viewer")

    def options(key: str, of: str) -> list[str]:
        page = browser.get("/lineage/names", {"ask": key, "of": of}).content.decode()
        return re.findall(r'<option value="([^"]+)"', page)

    assert options("approved", "check") == ["checkout/canary #1"]
    assert options("changed", "checkout/c") == ["checkout/canary"]
    assert len(options("goals", "rid")) == 1
    assert len(options("touched", "")) == 3
    assert options("touched", "no such thing") == []


def test_edges_say_what_signs_them_and_the_table_says_the_same(tower: Any, people: Any) -> None:
    made = provenance(tower)
    _, page = ask(as_(people, "viewer"), "around", made.model.digest, depth="3")
    assert f"/artifacts/{made.model.digest}/statement" in page
    assert "in-toto statement of risk" in page
    assert "○ unsigned" in page
    parse_html(page)
    curves = page.count('<path class="lineage-edge')
    rows = page.count('data-label="Signed by"')
    assert curves == rows + 2  # two lines of the legend
    document = as_(people, "viewer").get(
        "/lineage", {"ask": "around", "of": made.model.digest, "depth": "3", "format": "json"}
    )
    assert document.json()["count"] == rows


def test_a_crowded_node_is_opened_step_by_step(tower: Any, people: Any) -> None:
    made = provenance(tower)
    many = [NodeRef(NodeKind.ARTIFACT, f"sha256:{n:064x}") for n in range(100)]
    node = NodeRef(NodeKind.ATTEMPT, str(made.attempt.uid))
    link_all(node, Relation.USED, many, namespace="default", goal_uid=made.goal.uid)
    browser = as_(people, "viewer")
    of = f"attempt:{made.attempt.uid}"
    _, page = ask(browser, "around", of)
    hidden = 101 - FAN_OUT
    assert f"+{hidden} more" in page
    _, page = ask(browser, "around", of, open=of)
    assert f"+{hidden - FAN_OUT_OPENED} more" in page


def test_a_walk_costs_the_same_however_many_edges_there_are(
    tower: Any, django_assert_max_num_queries: Any
) -> None:
    made = provenance(tower)
    Edge.objects.bulk_create(
        Edge(
            namespace="default",
            source_kind="attempt",
            source_id=str(made.attempt.uid),
            relation=Relation.USED,
            target_kind="artifact",
            target_id=f"sha256:{number:064x}",
        )
        for number in range(5_000)
    )
    start = NodeRef(NodeKind.ATTEMPT, str(made.attempt.uid))
    with django_assert_max_num_queries(8):
        found = neighbourhood([start], Walk("default", depth=2))
    assert len(found.steps) < 40
    assert found.hidden[start] == 1000 - FAN_OUT  # counted up to a limit


def test_a_walk_goes_one_way_and_ends_at_a_namespace(tower: Any) -> None:
    made = provenance(tower)
    start = NodeRef(NodeKind.ARTIFACT, made.dataset.digest)
    kinds = {
        direction: {
            node.kind
            for node in neighbourhood([start], Walk("default", depth=6, direction=direction)).steps
        }
        for direction in (Direction.CAUSES, Direction.EFFECTS)
    }
    assert kinds[Direction.CAUSES] == {NodeKind.ARTIFACT}
    assert NodeKind.RELEASE in kinds[Direction.EFFECTS]
    assert NodeKind.GOAL not in kinds[Direction.EFFECTS]
    assert len(neighbourhood([start], Walk("other", depth=6)).steps) == 1
