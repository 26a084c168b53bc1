"""The GPUs as people see them: holders by namespace, waste and its cost, trouble, staleness."""

import csv
import io
import json
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from agents.domain.states import AttemptState
from agents.models import Agent, Attempt, GpuDevice, GpuNode
from goals.gpus.facts import device_views, totals, usd, visible_devices
from goals.gpus.overview import overview
from goals.services.prices import set_price
from lineage.domain import ArtifactKind
from lineage.models import Artifact, Edge
from tests.goals.gpu_fleet import card, divided, part, report, slot, troubled
from tests.towers import Tower

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def tower(people: dict[str, Any], twins: Any) -> Tower:
    one = Tower(people, twins)
    set_price(kind="gpu", name="default", micro_usd=6_000_000, actor=one.admin.actor)
    one.register("profiler", gpus=1)
    return one


@pytest.fixture
def attempt(tower: Tower) -> Attempt:
    """One attempt that runs and holds a GPU, with the model it works on."""
    goal = tower.apply().goal
    found = Attempt.objects.create(
        goal_uid=goal.uid, namespace="default", graph_digest=DIGEST, iteration=1, task="profile",
        number=1, agent=Agent.objects.get(name="profiler"), agent_name="profiler",
        workload="reduce-p99-profile-1-1", state=AttemptState.RUNNING, gpus=1,
        started_at=timezone.now(),
    )  # fmt: skip
    Artifact.objects.create(
        namespace="default", kind=ArtifactKind.MODEL, name="checkout", digest=DIGEST,
        blob_digest=DIGEST, size_bytes=1,
    )  # fmt: skip
    Edge.objects.create(
        namespace="default", source_kind="attempt", source_id=str(found.uid), relation="used",
        target_kind="artifact", target_id=DIGEST,
    )  # fmt: skip
    return found


def _client(tower: Tower, name: str) -> Client:
    client = Client()
    client.force_login(tower.people[name])
    return client


def _page(tower: Tower, name: str = "viewer", path: str = "/gpus", **query: str) -> str:
    answer = _client(tower, name).get(path, query)
    assert answer.status_code == 200
    return answer.content.decode()


def _views(tower: Tower) -> dict[str, Any]:
    views = device_views(list(visible_devices(tower.operator)), tower.operator)
    return {view.row.device_id: view for view in views}


def test_a_held_card_names_agent_goal_and_model(tower: Tower, attempt: Attempt) -> None:
    one = card(1)
    report("n1", one, held_by={one.id: attempt.workload})
    text = _page(tower)
    for expected in (
        "profiler",
        "default/reduce-p99-latency",
        DIGEST,
        "63 %",
        "33.3 GB of 85.9 GB",
    ):
        assert expected in text, expected
    assert "declared</span>" not in text


def test_who_may_not_see_the_namespace_sees_it_held(tower: Tower, attempt: Attempt) -> None:
    from django.contrib.auth.models import User

    from governance.models import Membership

    other = User.objects.create_user("olga", password="correct horse battery")
    Membership.objects.create(user=other, namespace="elsewhere", role="viewer")
    tower.people["olga"] = other
    one = card(1)
    report("n1", one, held_by={one.id: attempt.workload})
    for path in ("/gpus", f"/gpus/n1/{one.id}"):
        text = _page(tower, "olga", path)
        assert "in a namespace you may not see" in text
        for hidden in ("profiler", "reduce-p99", DIGEST, attempt.workload, str(attempt.uid)):
            assert hidden not in text, hidden
    for query in ("-l agent=profiler", "reduce-p99", "profiler"):
        assert "No GPU matches this filter" in _page(tower, "olga", q=query)
    rows = json.loads(_page(tower, "olga", format="json"))["rows"]
    assert [(row["is_held"], row["agent"], row["goal"]) for row in rows] == [(True, "", "")]


def test_who_sees_no_namespace_sees_no_card(tower: Tower) -> None:
    from django.contrib.auth.models import User

    tower.people["nora"] = User.objects.create_user("nora", password="correct horse battery")
    report("n1", card(1))
    assert "It needs the role viewer; ask" in _page(tower, "nora")
    assert _client(tower, "nora").get(f"/gpus/n1/{card(1).id}").status_code == 404
    assert overview(tower_principal(tower, "nora")) == []


def tower_principal(tower: Tower, name: str) -> Any:
    from governance.access import principal_of

    return principal_of(tower.people[name])


def test_declared_slots_are_told_apart_and_unknown(tower: Tower) -> None:
    report("local", slot(0), slot(1))
    text = _page(tower)
    assert "2</strong> slots declared, not measured" in text
    assert "0</strong> cards measured" in text
    assert "declared</span>" in text
    assert "0 %" not in text
    assert "unknown" in text
    assert "not measured" in _page(tower, path="/gpus/local/gpu-0")


def test_idle_but_held_costs(tower: Tower, attempt: Attempt) -> None:
    idle = card(1, utilisation=0.01)
    for ago in (600, 0):
        report("n1", idle, card(2), held_by={idle.id: attempt.workload}, ago=ago)
    waste = _views(tower)[idle.id].waste
    assert waste.why == "idle"
    assert waste.seconds == pytest.approx(600, abs=30)
    assert waste.micro_usd_per_minute == 100_000
    assert waste.micro_usd == pytest.approx(1_000_000, rel=0.05)
    text = _page(tower)
    assert "idle but held for 10 min" in text
    assert "0.10 USD a minute" in text
    assert "1</strong> idle but held: 0.10 USD a minute" in text
    assert _views(tower)[card(2).id].waste is None


def test_a_short_pause_is_no_waste(tower: Tower, attempt: Attempt) -> None:
    idle = card(1, utilisation=0.01)
    for ago in (200, 0):
        report("n1", idle, held_by={idle.id: attempt.workload}, ago=ago)
    assert _views(tower)[idle.id].waste is None
    assert totals(tower.operator).wasted == 0


def test_held_while_paused_is_waste_at_once_even_of_a_slot(tower: Tower, attempt: Attempt) -> None:
    Attempt.objects.filter(pk=attempt.pk).update(
        state=AttemptState.PAUSED, gpu_idle_held_ms=120_000
    )
    report("local", slot(0), held_by={"gpu-0": attempt.workload})
    waste = _views(tower)["gpu-0"].waste
    assert (waste.why, waste.seconds, waste.micro_usd) == ("paused", 120, 200_000)
    assert totals(tower.operator).wasted == 1
    assert "held while paused for 2 min 0 s" in _page(tower)


def test_without_a_price_the_cost_is_unknown_and_not_zero(
    people: dict[str, Any], twins: Any
) -> None:
    tower = Tower(people, twins)
    idle = card(1, utilisation=0.0)
    for ago in (600, 0):
        report("n1", idle, held_by={idle.id: "somebody"}, ago=ago)
    text = _page(tower)
    assert "cost unknown: no price is set for GPUs" in text
    assert "0.00 USD" not in text


def test_trouble_is_badged_worst_first(tower: Tower) -> None:
    report("n1", troubled(1), card(2))
    marks = [mark.word for mark in _views(tower)[troubled(1).id].marks]
    assert marks == [
        "XID 31, 2 times", "XID 79", "ECC 2 uncorrected", "thermal", "foreign process",
        "ECC 12 corrected", "power cap",
    ]  # fmt: skip
    assert _views(tower)[card(2).id].marks == ()
    text = _page(tower, path=f"/gpus/n1/{troubled(1).id}")
    assert "the card fell off the bus" in text
    assert "xmrig" in text
    assert "not ours" in text


def test_slices_are_inside_their_card(tower: Tower, attempt: Attempt) -> None:
    whole = divided(1)
    mine, free = part(whole, 0), part(whole, 1)
    report("n1", whole, mine, free, held_by={mine.id: attempt.workload})
    text = _page(tower)
    assert "divided into 2 MIG slices" in text
    assert text.count("1g.10gb") == 2
    assert "profiler" in text
    assert free.id in _page(tower, path=f"/gpus/n1/{free.id}")
    held = _page(tower, show="held")  # found by its slice, shown with all of its card
    assert "profiler" in held
    assert totals(tower.operator).held == 1


def test_a_node_that_fell_silent_is_stale_and_claims_no_waste(
    tower: Tower, attempt: Attempt
) -> None:
    idle = card(1, utilisation=0.0)
    for ago in (900, 60):
        report("n1", idle, held_by={idle.id: attempt.workload}, ago=ago)
    text = _page(tower)
    assert "stale: last read 1 min" in text
    assert "is-stale" in text
    assert "idle but held" not in text.split("</form>")[1]
    assert "stale" in overview(tower.operator)[0].words


def test_cards_that_cannot_be_read_say_why(tower: Tower) -> None:
    report("n1", card(1), ago=60)
    GpuNode.objects.update(trouble="NVML does not answer: Unknown Error.", heard_at=timezone.now())
    text = _page(tower)
    assert "not readable" in text
    assert "NVML does not answer: Unknown Error." in text


FILTERS: list[tuple[dict[str, str], list[int]]] = [
    ({"q": "-l node=n2"}, [2, 3]),
    ({"q": "!-l node=n2"}, [1]),
    ({"node": "n1"}, [1]),
    ({"q": "GPU-00000003"}, [3]),
    ({"show": "trouble"}, [3]),
    ({"show": "foreign"}, [3]),
    ({"show": "held"}, [1]),
    ({"show": "free"}, [2, 3]),
    ({"show": "declared"}, []),
    ({"q": "-l agent=profiler"}, [1]),
    ({"q": "-l goal=reduce-p99-latency"}, [1]),
    ({"q": "!profiler"}, [2, 3]),
]


def test_the_filter(tower: Tower, attempt: Attempt) -> None:
    report("n1", card(1), held_by={card(1).id: attempt.workload})
    report("n2", card(2), troubled(3))
    client = _client(tower, "viewer")
    for query, expected in FILTERS:
        for view in ("", "table"):
            text = client.get("/gpus", {**query, "view": view}).content.decode()
            found = [n for n in (1, 2, 3) if f"/gpus/n{min(n, 2)}/{card(n).id}" in text]
            assert found == expected, (query, view)
        answer = client.get("/gpus", {**query, "format": "csv"})
        rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
        assert [row["id"] for row in rows] == [card(n).id for n in expected], query


def test_a_filter_that_is_none_says_so(tower: Tower) -> None:
    report("n1", card(1))
    assert "-l takes key=value" in _page(tower, q="-l nonsense")


def test_a_thousand_cards_cost_a_fixed_number_of_queries(
    tower: Tower, attempt: Attempt, django_assert_max_num_queries: Any
) -> None:
    for node in range(125):
        cards = [card(8 * node + index) for index in range(8)]
        report(f"n{node:03d}", *cards, held_by={cards[0].id: attempt.workload})
    client = _client(tower, "viewer")
    client.get("/gpus")
    with django_assert_max_num_queries(28):
        text = client.get("/gpus").content.decode()
    assert text.count('class="gpu-card ') == 32
    assert text.count('class="gpu-block') - text.count('class="gpu-block-name') == 126
    assert "125</strong> held" in text
    assert "1 to 32 of 1000 cards" in text
    with django_assert_max_num_queries(28):
        text = client.get("/gpus", {"view": "table"}).content.decode()
    assert GpuDevice.objects.count() == 1000


def test_little_money_is_not_nothing() -> None:
    assert [usd(micro) for micro in (0, 1, 10_000, 1_234_560_000)] == [
        "0.00 USD", "less than 0.01 USD", "0.01 USD", "1,234.56 USD",
    ]  # fmt: skip
