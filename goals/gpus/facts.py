"""The GPUs as people see them: each device with who holds it, what is wrong and what is wasted."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from django.db.models import CharField, Count, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from agents.domain.states import AttemptState
from agents.gpus.domain import (
    IDLE_HELD_SECONDS,
    STALE_SECONDS,
    XID_RECENT_SECONDS,
    DeviceKind,
    Owner,
)
from agents.models import Attempt, ClusterWorkload, GpuDevice, GpuNode
from goals.gpus.marks import Mark, marks_of
from goals.models import Goal
from goals.services.metering import MS_PER_HOUR, PriceUnknown, gpu_cost
from governance.access import NotVisible, Principal, within
from governance.domain import Permission
from governance.row_filter import filter_query
from lineage.domain import ArtifactKind, NodeKind, Relation
from lineage.models import Artifact, Edge

MINUTE_MS: Final = 60_000
MICRO: Final = 1_000_000
MODELS_MAX: Final = 4  # of one attempt on the page; its own page has all
FILTER_WORDS: Final = (
    "device_id", "name", "profile", "node__name", "agent", "goal", "namespace",
)  # fmt: skip
FILTER_LABELS: Final = {
    "node": "node__name",
    "name": "name",
    "kind": "kind",
    "profile": "profile",
    "agent": "agent",
    "goal": "goal",
    "namespace": "namespace",
}
SHOWN: Final = {
    "": "All GPUs",
    "held": "Held",
    "wasted": "Idle but held",
    "free": "Free",
    "trouble": "In trouble",
    "foreign": "Not ours",
    "stale": "Stale",
    "measured": "Measured",
    "declared": "Declared only",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The attempt that holds a device; for people who may see its namespace."""

    attempt_uid: UUID
    agent: str
    task: str
    state: str
    namespace: str
    goal_uid: UUID
    goal: str  # its name
    models: tuple[tuple[str, str], ...]  # digest and name of the models it works with


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignHolder:
    """A pod that is not ours and holds a device; for people who may see its namespace."""

    namespace: str
    pod: str
    workload_uid: UUID | None = None  # of the catalogue, where it is known by now
    workload: str = ""  # kind and name


@dataclass(frozen=True, slots=True)
class Waste:
    """Held and doing nothing. Money is None where no price is set."""

    why: str  # "idle" | "paused"
    seconds: float
    micro_usd_per_minute: int | None
    micro_usd: int | None

    @property
    def cost_words(self) -> str:
        """What it costs a minute and has cost so far."""
        if self.micro_usd_per_minute is None or self.micro_usd is None:
            return "cost unknown: no price is set for GPUs"
        return f"{usd(self.micro_usd_per_minute)} a minute, {usd(self.micro_usd)} so far"


def usd(micro: int) -> str:
    """An amount in micro-USD in words: little is not nothing."""
    if 0 < micro < MICRO // 100:
        return "less than 0.01 USD"
    return f"{micro / MICRO:,.2f} USD"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """One device as it stands; figures of a stale one are the last that were known."""

    row: GpuDevice
    is_stale: bool
    age_seconds: float | None  # since its node was last read; None: never
    marks: tuple[Mark, ...]
    holder: Holder | None  # None when it is free, or held by what this person may not see
    waste: Waste | None
    parts: tuple["DeviceView", ...] = ()
    foreign_holder: ForeignHolder | None = None

    @property
    def is_declared(self) -> bool:
        return self.row.kind == DeviceKind.SLOT

    @property
    def is_held(self) -> bool:
        return bool(self.row.held_by)

    @property
    def is_held_by_others(self) -> bool:
        """By a pod that is not ours: workloads of attempts have no slash in their names."""
        return "/" in self.row.held_by

    @property
    def is_divided(self) -> bool:
        """A card in MIG mode: its slices are held, never the card."""
        return bool(self.row.is_mig_on)

    @property
    def utilisation_percent(self) -> int | None:
        return None if self.row.utilisation is None else round(100 * self.row.utilisation)

    @property
    def memory_percent(self) -> float | None:
        used, total = self.row.memory_used_bytes, self.row.memory_total_bytes
        return None if used is None or not total else round(100 * used / total, 1)

    @property
    def power_watts(self) -> int | None:
        return None if self.row.power_mw is None else round(self.row.power_mw / 1000)

    @property
    def power_limit_watts(self) -> int | None:
        return None if self.row.power_limit_mw is None else round(self.row.power_limit_mw / 1000)

    @property
    def foreign(self) -> list[dict[str, Any]]:
        """Processes that no attempt started."""
        return [one for one in self.row.processes or () if one["owner"] == Owner.FOREIGN]

    @property
    def state(self) -> str:
        """One word: what colours it in the drawing."""
        if self.row.lost_at is not None:
            return "lost"
        if self.is_stale:
            return "stale"
        if any(mark.tone == "danger" for mark in self.marks):
            return "trouble"
        if self.waste is not None:
            return "wasted"
        return "held" if self.is_held else "free"


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node and those of its devices that are shown."""

    row: GpuNode
    is_stale: bool
    age_seconds: float | None
    devices: tuple[DeviceView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How many of what can be held; `wasted_micro_usd` a minute is None where no price is set."""

    cards: int
    slices: int
    slots: int
    held: int
    wasted: int
    trouble: int
    foreign: int
    stale: int
    wasted_micro_usd: int | None

    @property
    def wasted_words(self) -> str:
        """What all that idles while it is held costs a minute."""
        if self.wasted_micro_usd is None:
            return "cost unknown: no price is set for GPUs"
        return f"{usd(self.wasted_micro_usd)} a minute"


def may_see_gpus(principal: Principal) -> bool:
    """Cards are everybody's who may see anything; who holds them is told by namespace."""
    spaces = principal.namespaces(Permission.VIEW)
    return spaces is None or bool(spaces)


def visible_devices(principal: Principal) -> QuerySet[GpuDevice]:
    """Every device for who may see any namespace, with agent, goal and namespace where visible."""
    found = GpuDevice.objects.select_related("node")
    if not may_see_gpus(principal):
        return found.none()
    holder = Attempt.objects.filter(
        within(principal, Permission.VIEW), workload=OuterRef("held_by")
    )
    goal = Goal.objects.filter(within(principal, Permission.VIEW), uid=OuterRef("goal_uid"))
    return found.annotate(
        agent=_text(holder.values("agent_name")),
        namespace=_text(holder.values("namespace")),
        goal_uid=Subquery(holder.values("goal_uid")[:1]),
        goal=_text(goal.values("name")),
    ).order_by("node", "parent_id", "position", "pk")


def _text(rows: QuerySet[Any, Any]) -> Coalesce:
    return Coalesce(Subquery(rows[:1]), Value(""), output_field=CharField())


def matching_devices(
    principal: Principal, *, text: str = "", shown: str = "", node: str = ""
) -> QuerySet[GpuDevice]:
    """Visible devices that the filter keeps. Raises FilterInvalid."""
    found = visible_devices(principal)
    query = filter_query(text, words=FILTER_WORDS, labels=FILTER_LABELS)
    query &= shown_query(shown, now=timezone.now())
    return found.filter(query, **({"node": node} if node else {}))


def shown_query(shown: str, *, now: dt.datetime) -> Q:
    """What a choice of SHOWN keeps; the unknown choice keeps all."""
    fresh = Q(node__sampled_at__gte=now - dt.timedelta(seconds=STALE_SECONDS))
    recent = now - dt.timedelta(seconds=XID_RECENT_SECONDS)
    wasted = Q(idle_since__lte=now - dt.timedelta(seconds=IDLE_HELD_SECONDS)) | Q(
        held_by__in=Attempt.objects.filter(state=AttemptState.PAUSED).values("workload")
    )
    choices = {
        "held": ~Q(held_by=""),
        "wasted": ~Q(held_by="") & fresh & Q(lost_at=None) & wasted,
        "free": Q(held_by="", lost_at=None) & ~Q(is_mig_on=True),
        "trouble": Q(lost_at__isnull=False)
        | Q(ecc_uncorrected__gt=0)
        | Q(xid_at__gte=recent)
        | Q(is_hot=True),
        "foreign": Q(has_foreign=True) | Q(held_by__contains="/"),
        "stale": ~fresh | Q(node__sampled_at=None),
        "measured": ~Q(kind=DeviceKind.SLOT),
        "declared": Q(kind=DeviceKind.SLOT),
    }
    return choices.get(shown, Q())


def totals(principal: Principal) -> Totals:
    """What there is and what of it is wasted, in one look over all devices."""
    now = timezone.now()
    rows = GpuDevice.objects.all() if may_see_gpus(principal) else GpuDevice.objects.none()
    counted = rows.aggregate(
        cards=Count("pk", filter=Q(kind=DeviceKind.CARD)),
        slices=Count("pk", filter=Q(kind=DeviceKind.SLICE)),
        slots=Count("pk", filter=Q(kind=DeviceKind.SLOT)),
        **{
            name: Count("pk", filter=shown_query(name, now=now))
            for name in ("held", "wasted", "trouble", "foreign", "stale")
        },
    )
    price = _price()
    return Totals(**counted, wasted_micro_usd=_cost(counted["wasted"] * MINUTE_MS, price))


def device_views(rows: Sequence[GpuDevice], principal: Principal) -> list[DeviceView]:
    """The rows with their holders, in a fixed number of queries however many they are."""
    now = timezone.now()
    holders = _holders({row.held_by for row in rows if row.held_by}, principal)
    attempts = _attempts({row.held_by for row in rows if row.held_by})
    others = _foreign_holders({row.held_by for row in rows if "/" in row.held_by}, principal)
    price = _price()
    views = [
        _device_view(row, attempts.get(row.held_by), holders.get(row.held_by), price, now)
        for row in rows
    ]
    return [
        replace(view, foreign_holder=others[view.row.held_by])
        if view.row.held_by in others
        else view
        for view in views
    ]


def card_views(cards: Sequence[GpuDevice], principal: Principal) -> list[DeviceView]:
    """Cards and slots with the slices of the cards inside them."""
    divided = [card.device_id for card in cards if card.kind == DeviceKind.CARD]
    parts = list(
        visible_devices(principal).filter(parent_id__in=divided).order_by("parent_id", "position")
    )
    views = device_views([*cards, *parts], principal)
    inside: dict[str, list[DeviceView]] = {}
    for view in views[len(cards) :]:
        inside.setdefault(view.row.parent_id, []).append(view)
    return [_with_parts(view, inside.get(view.row.device_id, [])) for view in views[: len(cards)]]


def node_views(views: Iterable[DeviceView]) -> list[NodeView]:
    """Devices under their nodes, in the order they come."""
    nodes: dict[str, tuple[GpuNode, list[DeviceView]]] = {}
    for view in views:
        nodes.setdefault(view.row.node_id, (view.row.node, []))[1].append(view)
    now = timezone.now()
    return [
        NodeView(node, _is_stale(node, now), _age(node, now), tuple(devices))
        for node, devices in nodes.values()
    ]


def get_device(principal: Principal, *, node: str, device_id: str) -> DeviceView:
    """One device with its slices. Raises NotVisible."""
    row = visible_devices(principal).filter(node=node, device_id=device_id).first()
    if row is None:
        raise NotVisible(f"There is no GPU {device_id} on node {node} that you may see.")
    return card_views([row], principal)[0]


def _with_parts(view: DeviceView, parts: Sequence[DeviceView]) -> DeviceView:
    return DeviceView(
        row=view.row, is_stale=view.is_stale, age_seconds=view.age_seconds, marks=view.marks,
        holder=view.holder, waste=view.waste, parts=tuple(parts),
        foreign_holder=view.foreign_holder,
    )  # fmt: skip


def _device_view(
    row: GpuDevice,
    attempt: Attempt | None,
    holder: Holder | None,
    price: int | None,
    now: dt.datetime,
) -> DeviceView:
    is_stale = _is_stale(row.node, now)
    is_known = not is_stale and row.lost_at is None
    return DeviceView(
        row=row,
        is_stale=is_stale,
        age_seconds=_age(row.node, now),
        marks=tuple(marks_of(row, now=now)),
        holder=holder,
        waste=_waste(row, attempt, price, now) if is_known else None,
    )


def _is_stale(node: GpuNode, now: dt.datetime) -> bool:
    age = _age(node, now)
    return age is None or age > STALE_SECONDS


def _age(node: GpuNode, now: dt.datetime) -> float | None:
    if node.sampled_at is None:
        return None
    return max((now - node.sampled_at).total_seconds(), 0.0)


def _waste(
    row: GpuDevice, attempt: Attempt | None, price: int | None, now: dt.datetime
) -> Waste | None:
    """Held while paused, or held and idle for longer than loading and thinking take."""
    if not row.held_by:
        return None
    if attempt is not None and attempt.state == AttemptState.PAUSED:
        held_ms = attempt.gpu_idle_held_ms // max(attempt.gpus, 1)
        return Waste("paused", held_ms / 1000, _cost(MINUTE_MS, price), _cost(held_ms, price))
    if row.idle_since is None:
        return None
    seconds = (now - row.idle_since).total_seconds()
    if seconds < IDLE_HELD_SECONDS:
        return None
    cost = _cost(int(seconds * 1000), price)
    return Waste("idle", seconds, _cost(MINUTE_MS, price), cost)


def _price() -> int | None:
    """Micro-USD of a GPU-hour today."""
    try:
        return gpu_cost(MS_PER_HOUR)
    except PriceUnknown:
        return None


def _cost(gpu_ms: int, price: int | None) -> int | None:
    return None if price is None else -(-gpu_ms * price // MS_PER_HOUR)


def _attempts(workloads: Iterable[str]) -> Mapping[str, Attempt]:
    found = Attempt.objects.filter(workload__in=list(workloads))
    return {attempt.workload: attempt for attempt in found}


def _holders(workloads: Iterable[str], principal: Principal) -> Mapping[str, Holder]:
    """Who holds, by workload, as far as the person may see it."""
    attempts = list(
        Attempt.objects.filter(within(principal, Permission.VIEW), workload__in=list(workloads))
    )
    goals = dict(
        Goal.objects.filter(uid__in={attempt.goal_uid for attempt in attempts}).values_list(
            "uid", "name"
        )
    )
    models = _models(attempts)
    return {
        attempt.workload: Holder(
            attempt_uid=attempt.uid,
            agent=attempt.agent_name,
            task=attempt.task,
            state=attempt.state,
            namespace=attempt.namespace,
            goal_uid=attempt.goal_uid,
            goal=goals.get(attempt.goal_uid, ""),
            models=tuple(models.get(str(attempt.uid), {}).items())[:MODELS_MAX],
        )
        for attempt in attempts
    }


def _foreign_holders(names: Iterable[str], principal: Principal) -> Mapping[str, ForeignHolder]:
    """Pods of others by `namespace/pod`, with the workload whose name theirs begins with."""
    pods = [
        (name, *name.split("/", 1))
        for name in names
        if principal.may(Permission.VIEW, namespace=name.split("/", 1)[0])
    ]
    if not pods:
        return {}
    rows = ClusterWorkload.objects.filter(
        namespace__in={namespace for _, namespace, _ in pods}, gpus__gt=0
    ).values_list("namespace", "name", "kind", "uid")
    known: dict[str, list[tuple[str, str, UUID]]] = {}
    for namespace, name, kind, uid in rows:
        known.setdefault(namespace, []).append((name, kind, uid))
    found = {}
    for held_by, namespace, pod in pods:
        whose = [one for one in known.get(namespace, ()) if f"{pod}-".startswith(f"{one[0]}-")]
        other = ForeignHolder(namespace=namespace, pod=pod)
        if whose:
            name, kind, uid = max(whose, key=lambda one: len(one[0]))
            other = replace(other, workload_uid=uid, workload=f"{kind} {name}")
        found[held_by] = other
    return found


def _models(attempts: Sequence[Attempt]) -> Mapping[str, dict[str, str]]:
    """Models that attempts used or made, by attempt: digest -> name."""
    edges = list(
        Edge.objects.filter(
            namespace__in={attempt.namespace for attempt in attempts},
            source_kind=NodeKind.ATTEMPT,
            source_id__in=[str(attempt.uid) for attempt in attempts],
            relation__in=(Relation.USED, Relation.PRODUCED),
            target_kind=NodeKind.ARTIFACT,
        )
        .order_by("id")
        .values_list("namespace", "source_id", "target_id")
    )
    names = {
        (namespace, digest): name
        for namespace, digest, name in Artifact.objects.filter(
            kind=ArtifactKind.MODEL, digest__in={digest for _, _, digest in edges}
        ).values_list("namespace", "digest", "name")
    }
    found: dict[str, dict[str, str]] = {}
    for namespace, source, digest in edges:
        if (namespace, digest) in names:
            found.setdefault(source, {})[digest] = names[namespace, digest]
    return found
