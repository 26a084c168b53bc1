"""The API of policy bundles: drafts tried out, saved, signed, moved by two people, returned."""

from typing import Any

import pytest

from governance.domain import Stage
from governance.models import BundleVersion, Decision, JournalRecord
from governance.services.bundles import ensure_starter_bundle
from governance.services.drafts import DraftInvalid, read_draft
from tests.governance.policy_people import NO_SPENDERS, Hand, make_hands, starter_files
from tests.towers import Tower

pytestmark = pytest.mark.django_db


@pytest.fixture
def hands(tower: Tower) -> dict[str, Hand]:
    return make_hands()


def saved(hand: Hand, base: int = 1, **changes: str) -> int:
    answer = hand.post(
        "/starter/versions",
        {"files": starter_files(**(changes or {"quota": NO_SPENDERS})), "base_version": base},
    )
    assert answer.status_code == 201, answer.content
    return answer.json()["version"]


def test_check_names_line_and_column(hands: dict[str, Hand]) -> None:
    good = hands["ada"].post("/check", {"files": starter_files()}).json()
    assert good == {"diagnostics": [], "silent_points": []}
    broken = starter_files(quota='\ndeny contains msg if {\n\tmsg := sprintf("x", [)\n}\n')
    found = hands["ada"].post("/check", {"files": broken}).json()["diagnostics"]
    line = next(f["source"] for f in broken if f["path"] == "quota.rego").split("\n")
    assert [one["path"] for one in found] == ["quota.rego"]
    assert line[found[0]["line"] - 1].strip() == 'msg := sprintf("x", [)'
    assert found[0]["column"] > 1


def test_check_names_the_place_in_the_data(hands: dict[str, Hand]) -> None:
    files = [f for f in starter_files() if f["path"] != "data.json"]
    bad = [*files, {"path": "data.json", "source": '{\n "a": 1,\n}'}]
    found = hands["ada"].post("/check", {"files": bad}).json()["diagnostics"]
    assert [(one["path"], one["line"]) for one in found] == [("data.json", 3)]


def test_check_says_where_a_bundle_has_no_rule(hands: dict[str, Hand]) -> None:
    one = [{"path": "a.rego", "source": 'package clearance.graph\ndeny["x"] { input.x }\n'}]
    found = hands["ada"].post("/check", {"files": one}).json()
    assert found == {
        "diagnostics": [],
        "silent_points": ["workload", "release", "approval", "drift"],
    }


@pytest.mark.parametrize(
    ("path", "source", "said"),
    [
        ("../a.rego", "package a", "a path is letters"),
        ("a.txt", "package a", "a path is letters"),
        ("data.json", "[1]", "must be a JSON object"),
        ("data.json", '{"a": NaN}', "NaN is not JSON"),
        ("data.json", '{"a": 1, "a": 2}', "same key twice"),
        ("data.json", '{"a": 90071992547409931}', "cannot be written as JSON"),
        ("data.json", "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_file_is_named(hands: dict[str, Hand], path: str, source: str, said: str) -> None:
    files = [{"path": "ok.rego", "source": "package ok"}, {"path": path, "source": source}]
    found = hands["ada"].post("/check", {"files": files}).json()["diagnostics"]
    assert found[0]["path"] == path
    assert said in found[0]["text"]
    refused = hands["ada"].post("/starter/versions", {"files": files, "base_version": 1})
    assert refused.status_code == 422
    assert refused["Content-Type"] == "application/problem+json"
    assert BundleVersion.objects.count() == 1


def test_what_no_database_keeps_is_refused(hands: dict[str, Hand]) -> None:
    files = [{"path": "a.rego", "source": "package a\n# \ud800"}]
    assert hands["ada"].post("/check", {"files": files}).status_code == 422
    with pytest.raises(DraftInvalid, match=r"U\+0000"):
        read_draft([("a.rego", "package a\n\x00")])
    with pytest.raises(DraftInvalid, match=r"U\+0000"):
        read_draft([("a.rego", "package a"), ("data.json", '{"a": "\\u0000"}')])
    with pytest.raises(DraftInvalid, match="surrogate"):
        read_draft([("a.rego", "package a\n# \ud800")])


def test_limits_hold(hands: dict[str, Hand]) -> None:
    long = [{"path": "a.rego", "source": "#" * (256 * 1024 + 1)}]
    many = [{"path": f"a{n}.rego", "source": "package a"} for n in range(101)]
    heavy = [{"path": f"a{n}.rego", "source": "#" * 200_000} for n in range(6)]
    assert hands["ada"].post("/check", {"files": long}).status_code == 422
    assert hands["ada"].post("/check", {"files": many}).status_code == 422
    found = hands["ada"].post("/check", {"files": heavy}).json()["diagnostics"]
    assert "bytes in all" in found[0]["text"]
    assert hands["ada"].post("/check", {"files": []}).json()["diagnostics"]
    assert hands["ada"].post("/check", {}).status_code == 422


def test_a_draft_that_hangs_is_an_answer_and_others_go_on(hands: dict[str, Hand]) -> None:
    bomb = starter_files(
        quota="\ndeny contains msg if {\n\tsome a in numbers.range(1, 100000)\n"
        '\tsome b in numbers.range(1, 100000)\n\ta + b == -1\n\tmsg := "x"\n}\n'
    )
    body = {"files": bomb, "point": "graph", "input": {"tasks": [], "cluster": {}}}
    verdict = hands["ada"].post("/evaluate", body).json()
    assert (verdict["outcome"], verdict["error"]) == ("deny", "timeout")
    assert hands["ada"].post("/check", {"files": starter_files()}).json()["diagnostics"] == []


def test_evaluate_against_a_recorded_input(tower: Tower, hands: dict[str, Hand]) -> None:
    tower.register("spender")
    tower.reconcile(tower.apply("a", agents="spender").goal)
    decision = Decision.objects.filter(point="graph").latest("at")
    body = {"files": starter_files(quota=NO_SPENDERS), "decision": str(decision.uid)}
    verdict = hands["ada"].post("/evaluate", body).json()
    assert verdict["outcome"] == "deny"
    (message,) = [m for m in verdict["messages"] if m["outcome"] == "deny"]
    source = next(f["source"] for f in body["files"] if f["path"] == message["path"])
    assert message["text"] == "spenders may not run"
    assert source.split("\n")[message["line"] - 1].startswith("deny contains")
    assert Decision.objects.filter(outcome="deny").count() == 0  # nothing is recorded


def test_a_recorded_input_of_another_namespace_is_not_there(
    tower: Tower, hands: dict[str, Hand], people: Any
) -> None:
    from django.test import Client

    tower.register("spender")
    tower.reconcile(tower.apply("a", agents="spender").goal)
    decision = Decision.objects.latest("at")
    Decision.objects.filter(pk=decision.pk).update(namespace="secret")
    client = Client()
    client.force_login(people["policy_author"])  # of namespace default alone
    page = client.get("/policies/starter/1")
    assert str(decision.uid) not in page.content.decode()
    hand = Hand(people["policy_author"], hands["ada"].api, client)
    from governance.access import principal_of
    from governance.services.tokens import create_token

    _, text = create_token(hand.user, principal=principal_of(hand.user), name="t")
    hand.api = Client(headers={"Authorization": f"Bearer {text}"})
    body = {"files": starter_files(), "decision": str(decision.uid)}
    assert hand.post("/evaluate", body).status_code == 404
    impact = hand.post("/impact", {"files": starter_files(), "name": "starter"}).json()
    assert impact["recorded"] == Decision.objects.filter(namespace="default").count()


def test_tests_run_with_coverage(hands: dict[str, Hand]) -> None:
    files = starter_files(quota_test="\ntest_wrong if 1 == 2\n", quota=NO_SPENDERS)
    run = hands["ada"].post("/test", {"files": files}).json()
    failed = [one["rule"] for one in run["results"] if not one["passed"]]
    assert failed == ["clearance.quota_test.test_wrong"]
    assert not run["passed"]
    quota = next(file for file in run["coverage"] if file["path"] == "quota.rego")
    source = next(f["source"] for f in files if f["path"] == "quota.rego").split("\n")
    assert source.index('\ttask.agent.name == "spender"') + 1 in quota["missed"] + quota["covered"]
    assert quota["covered"]


def test_save_signs_a_new_draft_and_the_same_again_is_the_same(hands: dict[str, Hand]) -> None:
    assert saved(hands["ada"]) == 2
    assert saved(hands["ada"], base=2) == 2
    read = hands["vic"].get("/starter/versions/2").json()
    assert (read["stage"], read["signature"], read["created_by"]) == ("draft", "valid", "ada")
    assert "/people/ada" in read["signature_text"]
    record = JournalRecord.objects.filter(action="bundle.saved").latest("seq")
    assert (record.actor_id, record.object_id) == ("ada", "starter@2")


def test_a_restart_does_not_offer_again_what_somebody_has_built_on(hands: dict[str, Hand]) -> None:
    saved(hands["ada"])
    first = ensure_starter_bundle(identity="https://clearance.test/bootstrap")
    assert (first.version, first.stage) == (1, "enforce")
    assert BundleVersion.objects.count() == 2


def test_save_refuses_what_fails_its_tests_and_what_is_overtaken(hands: dict[str, Hand]) -> None:
    failing = starter_files(quota_test="\ntest_wrong if 1 == 2\n")
    refused = hands["ada"].post("/starter/versions", {"files": failing, "base_version": 1})
    assert refused.status_code == 422
    assert "test_wrong" in refused.json()["detail"]
    saved(hands["ada"])
    late = {"files": starter_files(quota="\n# mine\n"), "base_version": 1}
    conflict = hands["abe"].post("/starter/versions", late)
    assert conflict.status_code == 409
    assert "ada saved version 2" in conflict.json()["detail"]


def test_who_may_not(hands: dict[str, Hand], people: Any) -> None:
    body = {"files": starter_files(), "base_version": 1}
    assert hands["vic"].post("/check", body).status_code == 403
    assert hands["eva"].post("/check", body).status_code == 200  # a reviewer tries things out
    assert hands["eva"].post("/starter/versions", body).status_code == 403
    assert hands["vic"].post("/starter/versions", body).status_code == 403
    version = saved(hands["ada"])
    for hand, stage in (("vic", "shadow"), ("eva", "shadow"), ("vic", "enforce")):
        refused = hands[hand].move(version, stage)
        assert refused.status_code == 403, (hand, stage)
        assert "role" in refused.json()["detail"]
    assert BundleVersion.objects.get(version=version).stage == Stage.DRAFT


def test_two_people_enforce(hands: dict[str, Hand]) -> None:
    version = saved(hands["abe"])  # an approver too
    assert hands["abe"].move(version, "shadow").status_code == 200
    alone = hands["abe"].move(version, "enforce")
    assert alone.status_code == 403
    assert "four eyes" in alone.json()["detail"]
    assert hands["ada"].move(version, "enforce").status_code == 403  # an author is no signer
    assert hands["eva"].move(version, "enforce", seen_enforced=1).status_code == 200
    assert BundleVersion.objects.get(version=1).stage == Stage.DRAFT
    record = JournalRecord.objects.filter(action="bundle.enforce").latest("seq")
    assert (record.actor_id, record.object_id) == ("eva", f"starter@{version}")


def test_without_four_eyes_one_is_enough(hands: dict[str, Hand], settings: Any) -> None:
    settings.FOUR_EYES = False
    version = saved(hands["ada"])
    assert hands["ada"].move(version, "enforce").status_code == 200


def test_a_role_in_one_namespace_does_not_move_what_judges_all(
    hands: dict[str, Hand], people: Any
) -> None:
    from governance.access import NotAllowed, principal_of
    from governance.services.stages import change_stage

    version = BundleVersion.objects.get(version=saved(hands["ada"]))
    with pytest.raises(NotAllowed, match="in every namespace"):
        change_stage(version, Stage.ENFORCE, principal=principal_of(people["approver"]))
    with pytest.raises(NotAllowed, match="in every namespace"):
        change_stage(version, Stage.SHADOW, principal=principal_of(people["policy_author"]))


def test_what_is_in_force_only_gives_way_to_another(hands: dict[str, Hand]) -> None:
    for stage in ("draft", "shadow", "warn"):
        refused = hands["eva"].move(1, stage)
        assert refused.status_code == 422
        assert "everything would be denied" in refused.json()["detail"]
    assert hands["eva"].move(1, "enforce").status_code == 200  # it is there already


def test_a_signer_who_looked_at_something_else_is_told(hands: dict[str, Hand]) -> None:
    second, third = saved(hands["ada"]), saved(hands["abe"], base=2, quota="\n# more\n")
    assert hands["eva"].move(second, "enforce", seen_enforced=1).status_code == 200
    stale = hands["eva"].move(third, "enforce", seen_enforced=1)
    assert stale.status_code == 409
    assert "version 2 is now" in stale.json()["detail"]


def test_return_goes_back_at_once_and_only_back(hands: dict[str, Hand]) -> None:
    refused = hands["ada"].post("/starter/return", {})
    assert refused.status_code == 422
    second = saved(hands["ada"])
    hands["eva"].move(second, "enforce")
    assert hands["vic"].post("/starter/return", {}).status_code == 403
    back = hands["ada"].post("/starter/return", {"seen_enforced": second})
    assert (back.status_code, back.json()["version"]) == (200, 1)
    assert BundleVersion.objects.get(version=second).stage == Stage.DRAFT
    assert hands["ada"].post("/starter/return", {}).status_code == 422
    third = saved(hands["abe"], base=second, quota="\n# better\n")
    hands["eva"].move(third, "enforce")
    assert hands["eva"].post("/starter/return", {}).json()["version"] == second - 1


@pytest.mark.parametrize(
    "change",
    [
        {"signature_bundle": ""},
        {"signature_bundle": "{}"},
        {"parameters": {"clearance": {}}},
        {"created_by": "abe"},
    ],
)
def test_a_version_whose_signature_does_not_hold_is_not_enforced(
    hands: dict[str, Hand], change: dict[str, Any]
) -> None:
    version = saved(hands["ada"])
    BundleVersion.objects.filter(version=version).update(**change)
    assert hands["vic"].get(f"/starter/versions/{version}").json()["signature"] != "valid"
    refused = hands["eva"].move(version, "enforce")
    assert refused.status_code == 422
    assert "signature" in refused.json()["detail"]


def test_a_signature_over_other_content_does_not_hold(hands: dict[str, Hand]) -> None:
    second, third = saved(hands["ada"]), saved(hands["ada"], base=2, quota="\n# more\n")
    other = BundleVersion.objects.get(version=second).signature_bundle
    BundleVersion.objects.filter(version=third).update(signature_bundle=other)
    read = hands["vic"].get(f"/starter/versions/{third}").json()
    assert read["signature"] == "broken"
    assert "other content" in read["signature_text"]


def test_diff(hands: dict[str, Hand]) -> None:
    version = saved(hands["ada"])
    (file,) = hands["vic"].get(f"/starter/versions/{version}/diff", base=1).json()
    assert (file["path"], file["added"], file["removed"]) == ("quota.rego", 5, 0)
    assert any(row["right"].strip() == "some task in input.tasks" for row in file["rows"])
    assert hands["vic"].get(f"/starter/versions/{version}/diff", base=9).status_code == 404


def test_an_agent_may_not(hands: dict[str, Hand]) -> None:
    from django.test import Client

    assert Client().post("/api/v1/bundles/check", {}).status_code == 401


def test_a_version_is_a_file_for_other_engines(hands: dict[str, Hand]) -> None:
    tarball = hands["vic"].get("/starter/versions/1/export", form="opa")
    assert tarball.status_code == 200
    assert tarball["Content-Disposition"] == 'attachment; filename="starter-1.tar.gz"'
    assert tarball.content.startswith(b"\x1f\x8b")  # gzip's magic number
    page = hands["vic"].browser.get("/policies/starter/1")
    assert "/policies/starter/1/export/gatekeeper" in page.content.decode()
    objects = hands["vic"].browser.get("/policies/starter/1/export/gatekeeper")
    assert objects["Content-Type"] == "application/yaml"
    assert b"kind: ConstraintTemplate" in objects.content
    assert hands["vic"].get("/starter/versions/1/export", form="helm").status_code == 422
    assert hands["vic"].browser.get("/policies/starter/1/export/helm").status_code == 404
    assert hands["vic"].get("/starter/versions/99/export", form="opa").status_code == 404


def test_what_gatekeeper_cannot_judge_is_refused_in_a_sentence(hands: dict[str, Hand]) -> None:
    graph = {"path": "g.rego", "source": "package clearance.graph\n\ndeny[msg] { msg := input.x }"}
    made = hands["ada"].post("/graphs/versions", {"files": [graph], "base_version": 0})
    assert made.status_code == 201, made.content
    refused = hands["ada"].get("/graphs/versions/1/export", form="gatekeeper")
    assert refused.status_code == 422
    assert "graphs has no rule for workloads" in refused.content.decode()
    back = hands["ada"].browser.get("/policies/graphs/1/export/gatekeeper", follow=True)
    assert "graphs has no rule for workloads" in back.content.decode()
