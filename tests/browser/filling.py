"""Rows of every kind for looking at pages: what runs, waits, landed, failed, and hostile words."""

import datetime as dt
import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.utils import timezone

from agents.catalogue.reading import scan_cluster
from agents.cluster import get_cluster
from agents.domain.documents import load_documents
from agents.domain.manifest import parse_agent
from agents.gpus.domain import DeviceKind, Reading, Sample, Throttle
from agents.models import ClusterWorkload
from agents.services.catalogue import record_scan
from agents.services.gpus import record_sample
from agents.services.registry import register_agent
from agents.services.survey import note_heard, record_foreign
from agents.survey.devices import by_node, declared
from agents.survey.domain import NodeFact, fleet_of
from goals.domain.manifest import parse_goal
from goals.models import Goal
from goals.services.apply import apply_goal
from goals.services.prices import set_price
from goals.services.releases import ReleaseRequest, request_release, rollback_release
from governance.access import principal_of
from governance.domain import EVERY_NAMESPACE, Role
from governance.models import Approval, BundleVersion, Decision, JournalRecord, Membership
from governance.services.approvals import decide_approval
from governance.services.bundles import ensure_starter_bundle, save_bundle
from governance.services.checkpoints import make_checkpoint
from governance.services.decisions import bundle_of
from governance.services.tokens import create_token
from lineage.domain import Actor, ActorKind, ArtifactKind
from lineage.models import Artifact
from lineage.services.artifacts import Origin, Upload, push_artifact, recall_artifact
from lineage.telemetry import get_telemetry
from tests.agents.cluster_objects import (
    Listed,
    account,
    bound,
    cron,
    pod,
    pods,
    workload,
)
from tests.agents.cluster_objects import role as rbac_role
from tests.otlp_exports import batch, span
from tests.towers import AGENT, GOAL, Tower

PASSWORD = "correct horse battery staple"
STEERED = "keys"  # the namespace whose Goals a worker moves
BARE = "bare"  # one Goal that nothing happened to yet
QUIET = "quiet"  # nothing at all
LONG = "a-name-as-long-as-names-of-goals-may-be-and-then-it-is-cut-off"
HOSTILE = "<script>alert(1)</script> " + "unbroken" * 40 + " \u202eright to left"
TARGET = "checkout/production"
GIB = 1 << 30


def fill() -> dict[str, Any]:
    """Fill the database and the twins. Returns {"facts": ids by name, "sessions": keys by name}."""
    people = _people()
    ensure_starter_bundle(identity="https://clearance.test/bootstrap")
    roles = {"operator": people["ada"], "approver": people["eva"], "admin": people["ada"]}
    tower = Tower(roles, SimpleNamespace(telemetry=get_telemetry(), cluster=get_cluster()))
    goal = _goals(tower)
    _gpus(tower.attempts(goal)[0].workload)
    facts = {**_ids_of(tower, goal), **_artifacts(goal), **_policies(), **_catalogue()}
    create_token(people["ada"], principal=principal_of(people["ada"]), name="pipeline")
    make_checkpoint()
    sessions = {name: _session(user) for name, user in people.items()}
    return {"facts": facts, "sessions": sessions}


def _people() -> dict[str, User]:
    """`ada` may all, `eva` approve; `nora` has nothing to look at and `zoe` no right at all.

    The others are the roles' own people in the namespace that is steered.
    """
    everything = [(EVERY_NAMESPACE, role) for role in Role]
    held: dict[str, list[tuple[str, Role]]] = {
        "ada": everything,
        "eva": [(EVERY_NAMESPACE, Role.APPROVER)],
        "nora": [(QUIET, role) for role in Role if role is not Role.ADMIN],
        "zoe": [],
        "olivia": [(STEERED, Role.OPERATOR)],
        "avery": [(STEERED, Role.APPROVER)],
        "pia": [(EVERY_NAMESPACE, Role.POLICY_AUTHOR)],
        "audra": [(EVERY_NAMESPACE, Role.AUDITOR)],
    }
    people = {}
    for name, roles in held.items():
        people[name] = User.objects.create_user(username=name, password=PASSWORD)
        for namespace, role in roles:
            Membership.objects.create(user=people[name], namespace=namespace, role=role)
    return people


def _session(user: User) -> str:
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return str(session.session_key)


def _goals(tower: Tower) -> Goal:
    """Goals in every phase; returns the one with the most to see."""
    tower.register("profiler", produces="latency-profile")
    tower.register("tuner", gpus=1, consumes="latency-profile", role="experimental")
    tower.register("spender", gpus=1, role="revenue-critical", models="gpt-4.1, gpt-4.1-mini")
    set_price(kind="input_token", name="gpt-4.1", micro_usd=2_000_000, actor=tower.admin.actor)
    for namespace in (STEERED, BARE):
        text = AGENT.format(name="spender", gpus=1, consumes="", produces="", role="worker")
        text = text.replace("namespace: default", f"namespace: {namespace}")
        register_agent(parse_agent(load_documents(text)[0]), actor=tower.admin.actor)
    spends = GOAL.format(name="spends", agents="spender", budget="1 GPU-second", more="")
    in_steered = spends.replace("namespace: default", f"namespace: {STEERED}")
    apply_goal(parse_goal(load_documents(in_steered)[0]), principal=tower.operator)
    rich = tower.apply("reduce-p99-latency", agents="profiler, tuner").goal
    for _ in range(6):
        tower.reconcile(rich)
        get_cluster().advance(2_000)
    _spans(tower, rich)
    tower.reconcile(rich)
    for name in ("rogue", LONG):
        spender = tower.apply(name, agents="spender", budget="30 GPU-seconds").goal
        for _ in range(8):
            tower.reconcile(spender)
            get_cluster().advance(5_000)
        tower.reconcile(spender)
    _answer_one(tower)
    tower.apply("draft", agents="profiler")
    text = GOAL.format(name="new", agents="spender", budget="9 GPU-seconds", more="")
    manifest = text.replace("namespace: default", f"namespace: {BARE}")
    apply_goal(parse_goal(load_documents(manifest)[0]), principal=tower.operator)
    return rich


def _answer_one(tower: Tower) -> None:
    """One question is answered, so that there is a decided one beside those that wait."""
    approval = Approval.objects.order_by("created_at").first()
    assert approval is not None
    decide_approval(approval, principal=tower.approver, approve=True,
                    reason="Two more minutes, then we look again.",
                    request_digest=approval.request_digest)  # fmt: skip
    Approval.objects.exclude(pk=approval.pk).update(agent_words=HOSTILE)


def _spans(tower: Tower, goal: Goal) -> None:
    attempt = tower.attempts(goal)[0]
    tower.observe(goal, attempt, 240.0)
    mine = {
        "namespace": "default", "goal_uid": str(goal.uid), "agent": attempt.agent_name,
        "task": attempt.task, "attempt_uid": str(attempt.uid),
    }  # fmt: skip
    steps = [
        span("b" * 16, because="a" * 16, at=1, name="widen the pool", action__confidence=0.9),
        span("c" * 16, parent="b" * 16, at=2, name=HOSTILE[:200], change__target=TARGET),
        span("d" * 16, because="c" * 16, at=3, name="ask a model", gen_ai__usage__input_tokens=900,
             gen_ai__usage__output_tokens=80, gen_ai__request__model="small-model"),
    ]  # fmt: skip
    many = [span(f"{n:016x}", parent="d" * 16, at=4 + n, name=f"step {n}") for n in range(1, 130)]
    get_telemetry().write_spans([batch(*steps, *many, **mine)])


def _gpus(workload: str) -> None:
    """A hot card with a slice, one that idles though it is held, one that is gone, and a slot."""
    slow = Reading(
        id="GPU-a", kind=DeviceKind.CARD, name="NVIDIA H100 80GB HBM3", position=0,
        memory_total_bytes=80 * GIB, memory_used_bytes=72 * GIB, utilisation=0.97,
        temperature_c=91, temperature_limit_c=90, power_mw=690_000, power_limit_mw=700_000,
        throttles=(Throttle.SW_THERMAL,), is_ecc_on=True, ecc_corrected=3, ecc_uncorrected=1,
        is_mig_on=True, hears_xids=True, xids=(79,), processes=(),
    )  # fmt: skip
    part = Reading(id="MIG-a", kind=DeviceKind.SLICE, name="NVIDIA H100", parent="GPU-a",
                   profile="1g.10gb", memory_total_bytes=10 * GIB, processes=())  # fmt: skip
    idle = replace(slow, id="GPU-b", position=1, utilisation=0.0, temperature_c=34, throttles=(),
                   xids=(), is_mig_on=False, ecc_uncorrected=0)  # fmt: skip
    gone = replace(idle, id="GPU-c", position=2, trouble="The card does not answer.")
    slot = Reading(id="gpu-0", kind=DeviceKind.SLOT, name="declared slot", position=3)
    now = timezone.now()
    for seconds in (90, 60, 30, 0):
        at = now - dt.timedelta(seconds=seconds)
        devices = (slow, part, idle, gone, slot)
        record_sample(Sample(node="n1", at=at, driver_version="550.1", devices=devices,
                             held_by={"GPU-b": workload}))  # fmt: skip
    record_sample(Sample(node="n2", at=now - dt.timedelta(minutes=9), devices=(slot,)))


def _catalogue() -> dict[str, str]:
    """What of a cluster looks like an agent, what does not, and who holds a GPU of it."""
    now = timezone.now()
    listed = Listed(
        workload("Deployment", "support-bot", namespace="default", env=("OPENAI_API_KEY",)),
        workload("StatefulSet", "train", namespace="default", gpus=2, account="trainer"),
        cron("nightly-agent", "0 2 * * *", namespace="default", image="langchain/langgraph:1"),
        workload("Deployment", "web", namespace="default", account="web"),
        account("trainer", namespace="default"),
        rbac_role("maker", {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]},
             namespace="default"),
        bound("maker", to="trainer", namespace="default"),
    )  # fmt: skip
    running = pods(
        pod("train-0", namespace="default", owner=("StatefulSet", "train"), gpus=2, node="n3"),
        pod("stuck", namespace="default", phase="Pending", gpus=1),
    )
    node = NodeFact(name="n3", gpus={"nvidia.com/gpu": 4}, product="NVIDIA-H100")
    fleet = fleet_of([node], running)
    record_foreign(fleet.foreign, at=now)
    record_scan(scan_cluster(listed, pods=running), cluster="prod", at=now)
    note_heard(cluster="prod", at=now, fleet=fleet)
    record_sample(declared(node, by_node(running)["n3"], at=now))
    found = {
        row.name: str(row.pk) for row in ClusterWorkload.objects.exclude(kind="ServiceAccount")
    }
    return {"workload": found["support-bot"], "quiet_workload": found["web"]}


def _ids_of(tower: Tower, goal: Goal) -> dict[str, str]:
    waiting = Approval.objects.filter(state="pending").first()
    decided = Approval.objects.exclude(state="pending").first()
    record = JournalRecord.objects.filter(goal_uid=goal.uid).last()
    decision = Decision.objects.filter(goal_uid=goal.uid).first()
    assert waiting
    assert decided
    assert record
    assert decision
    return {
        "goal": f"default/{goal.name}",
        "goal_name": goal.name,
        "goal_uid": str(goal.uid),
        "gpu": "n1/GPU-a",
        "idle_gpu": "n1/GPU-b",
        "bare_goal": f"{BARE}/new",
        "attempt": str(tower.attempts(goal)[0].uid),
        "waiting": str(waiting.uid),
        "decided": str(decided.uid),
        "record": str(record.seq),
        "decision": str(decision.uid),
        "span": "d" * 16,
        "agent": "default/profiler",
    }


def _artifacts(goal: Goal) -> dict[str, str]:
    """Two releases and a rollback, and a digest that was recalled."""
    ada = Actor(ActorKind.HUMAN, "ada")

    def push(content: bytes, **more: Any) -> Artifact:
        upload = Upload(io.BytesIO(content), ArtifactKind.MODEL, "risk", "risk.bin")
        return push_artifact(
            upload, Origin(ada, "https://clearance.test/ada", "default", goal_uid=goal.uid, **more)
        )

    def release(artifact: Artifact) -> Any:
        return request_release(
            ReleaseRequest(namespace="default", service="checkout", environment="canary",
                           digest=artifact.digest, actor=ada, reason="It is faster.")
        )  # fmt: skip

    old = push(b"old")
    new = push(b"new", used=(old.digest,))
    first = release(old)
    release(new)
    rollback_release(first, actor=ada, reason="It was worse.")
    recall_artifact(push(b"bad"), reason="It leaks.", actor=ada)
    return {"release": str(first.uid), "artifact": new.digest}


def _policies() -> dict[str, str]:
    """A second version of the starter bundle, which stays a draft."""
    enforced = BundleVersion.objects.get(stage="enforce")
    bundle = bundle_of(enforced)
    save_bundle(
        enforced.name,
        modules=bundle.modules,
        parameters={**enforced.parameters, "extra": {"limit": 3}},
        actor=Actor(ActorKind.HUMAN, "ada"),
        identity="https://clearance.test/ada",
    )
    return {"policy": enforced.name}
