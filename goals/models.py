"""Rows of what people ask: Goals, their graphs and tasks, the ledger, releases."""

import datetime as dt
import uuid
from typing import Any

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from goals.domain.killing import KillScope, KillTarget
from goals.domain.states import (
    TERMINAL_PHASES,
    DesiredRun,
    EntryKind,
    Phase,
    Pool,
    ReleaseState,
    TaskState,
    Unit,
)


def _choices(words: Any) -> list[tuple[str, str]]:
    return [(word.value, word.value) for word in words]


class Goal(models.Model):
    """A desired end state and where it stands; the custom resource `Goal` seen as a row."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    namespace = models.CharField(max_length=63)
    name = models.CharField(max_length=63)
    labels = models.JSONField(default=dict)
    annotations = models.JSONField(default=dict)
    generation = models.PositiveIntegerField(default=1)
    observed_generation = models.PositiveIntegerField(default=0)
    spec = models.JSONField()  # canonical form of the manifest's spec
    objective = models.CharField(max_length=500)
    phase = models.CharField(max_length=16, choices=_choices(Phase), default=Phase.DRAFT)
    satisfied = models.BooleanField(default=False)
    desired = models.CharField(max_length=8, choices=_choices(DesiredRun), default=DesiredRun.RUN)
    conditions = models.JSONField(default=list)
    # The terminal phase the Goal is being landed in; set once, so that a crash cannot change it.
    landing = models.CharField(max_length=16, default="")
    landing_reason = models.CharField(max_length=64, default="")
    landing_message = models.TextField(default="")
    iteration = models.PositiveIntegerField(default=0)
    iteration_started_at = models.DateTimeField(null=True)
    graph_digest = models.CharField(max_length=71, default="")
    requested_by = models.CharField(max_length=150)
    sponsor = models.CharField(max_length=150, default="")
    editors = models.JSONField(default=list)  # user names that changed the spec
    measured_value = models.FloatField(null=True)  # last observation of the objective
    measured_unit = models.CharField(max_length=16, default="")
    measured_at = models.DateTimeField(null=True)
    measured_span_id = models.CharField(max_length=16, default="")
    first_value = models.FloatField(null=True)
    overruns = models.JSONField(default=dict)  # tokens used uncovered, by "attempt:model"
    created_at = models.DateTimeField(default=timezone.now)
    asked_at = models.DateTimeField(default=timezone.now)  # this generation; the deadline's start
    started_at = models.DateTimeField(null=True)
    landed_at = models.DateTimeField(null=True)
    deletion_requested_at = models.DateTimeField(null=True)
    deleted_at = models.DateTimeField(null=True)
    # Lease of the one worker that may act, with its fencing epoch (I3).
    epoch = models.BigIntegerField(default=0)
    lease_owner = models.CharField(max_length=128, default="")
    lease_expires_at = models.DateTimeField(null=True)
    reconcile_after = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["namespace", "name"],
                condition=Q(deleted_at__isnull=True),
                name="goal_name_once_per_namespace",
            )
        ]
        indexes = [
            models.Index(fields=["phase", "reconcile_after"]),
            models.Index(fields=["namespace", "-created_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def is_landed(self) -> bool:
        return Phase(self.phase) in TERMINAL_PHASES


class Graph(models.Model):
    """The task graph of one generation; `canonical` is what the digest was taken of."""

    goal = models.ForeignKey(Goal, on_delete=models.CASCADE, related_name="graphs")
    generation = models.PositiveIntegerField()
    digest = models.CharField(max_length=71)
    canonical = models.TextField()
    estimates = models.JSONField(default=dict)  # by task name, and "" for the whole
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["goal", "digest"], name="graph_once_per_goal")
        ]

    def __str__(self) -> str:
        return self.digest


class Task(models.Model):
    """One node of the graph in one iteration."""

    goal = models.ForeignKey(Goal, on_delete=models.CASCADE, related_name="tasks")
    graph_digest = models.CharField(max_length=71)
    iteration = models.PositiveIntegerField()
    position = models.PositiveIntegerField()  # topological order
    name = models.CharField(max_length=63)
    agent_name = models.CharField(max_length=63)
    depends_on = models.JSONField(default=list)
    gpus = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=16, choices=_choices(TaskState), default=TaskState.PENDING)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["iteration", "position"]
        constraints = [
            models.UniqueConstraint(
                fields=["goal", "graph_digest", "iteration", "name"], name="task_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} #{self.iteration}: {self.state}"


class Account(models.Model):
    """One dimension of a Goal's budget. `available` is limit - reserved - settled."""

    goal = models.ForeignKey(Goal, on_delete=models.CASCADE, related_name="accounts")
    unit = models.CharField(max_length=16, choices=_choices(Unit))
    limit = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField(default=0)
    settled = models.BigIntegerField(default=0)
    overrun = models.BigIntegerField(default=0)  # reported after the fact and not covered

    class Meta:
        ordering = ["unit"]  # the same everywhere, whatever the database
        constraints = [
            models.UniqueConstraint(fields=["goal", "unit"], name="account_once_per_unit"),
            models.CheckConstraint(
                condition=Q(reserved__gte=0, settled__gte=0, limit__gte=0),
                name="account_never_negative",
            ),
            models.CheckConstraint(
                condition=Q(limit__gte=F("reserved") + F("settled")),
                name="account_never_overspent",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.unit} of {self.goal_id}: {self.settled}+{self.reserved}/{self.limit}"

    @property
    def available(self) -> int:
        return self.limit - self.reserved - self.settled


class LedgerEntry(models.Model):
    """One double entry: `amount` moves from the debited pool to the credited one."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="entries")
    kind = models.CharField(max_length=8, choices=_choices(EntryKind))
    debit = models.CharField(max_length=10, choices=_choices(Pool))
    credit = models.CharField(max_length=10, choices=_choices(Pool))
    amount = models.BigIntegerField()
    idempotency_key = models.CharField(max_length=200)
    attempt_uid = models.UUIDField(null=True)
    span_id = models.CharField(max_length=16, default="")
    approval_uid = models.UUIDField(null=True)
    note = models.CharField(max_length=255, default="")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["created_at"]
        verbose_name_plural = "ledger entries"
        constraints = [
            models.UniqueConstraint(
                fields=["account", "idempotency_key"], name="entry_once_per_key"
            ),
            models.CheckConstraint(condition=Q(amount__gt=0), name="entry_moves_something"),
        ]
        indexes = [
            models.Index(fields=["attempt_uid"]),
            models.Index(fields=["account", "kind"]),  # all that was ever granted
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount}"


class Price(models.Model):
    """What one unit of something costs; an unknown price denies."""

    kind = models.CharField(max_length=16)  # "gpu" | "input_token" | "output_token"
    name = models.CharField(max_length=128)  # GPU model or language model
    micro_usd = models.BigIntegerField()  # per GPU-hour, or per million tokens
    set_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["kind", "name", "-created_at"]
        indexes = [models.Index(fields=["kind", "name", "-created_at"])]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.micro_usd}"


class Release(models.Model):
    """Which artifact digest an environment serves, from when, and who put it there."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    namespace = models.CharField(max_length=63)
    service = models.CharField(max_length=63)
    environment = models.CharField(max_length=63)
    number = models.PositiveIntegerField()  # from 1 within namespace, service and environment
    digest = models.CharField(max_length=71)
    previous_digest = models.CharField(max_length=71, default="")
    state = models.CharField(max_length=20, choices=_choices(ReleaseState))
    is_rollback = models.BooleanField(default=False)
    reason = models.TextField(default="")
    evidence = models.JSONField(default=list)  # digests
    decision_uid = models.UUIDField(null=True)
    approval_uid = models.UUIDField(null=True)
    goal_uid = models.UUIDField(null=True, db_index=True)
    attempt_uid = models.UUIDField(null=True)
    span_id = models.CharField(max_length=16, default="")
    released_by_kind = models.CharField(max_length=8)
    released_by_id = models.CharField(max_length=512)
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["namespace", "service", "environment", "number"], name="release_number_once"
            ),
            models.UniqueConstraint(
                fields=["namespace", "service", "environment"],
                condition=Q(state=ReleaseState.ACTIVE),
                name="release_one_active",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.service}/{self.environment} -> {self.digest}"


class KillSwitch(models.Model):
    """A thrown switch: while it stands, nothing of what it covers is started."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    scope = models.CharField(max_length=12, choices=_choices(KillScope))
    namespace = models.CharField(max_length=63, default="")  # "" for everything
    target = models.CharField(max_length=63, default="")  # an agent's name or a Goal's uid
    label = models.CharField(max_length=130, default="")  # what people call the target
    reason = models.CharField(max_length=500, default="")
    thrown_by = models.CharField(max_length=150)
    thrown_at = models.DateTimeField(default=timezone.now)
    attempts = models.PositiveIntegerField(default=0)  # that it ended, in all throws
    lifted_by = models.CharField(max_length=150, default="")
    lifted_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-thrown_at"]
        verbose_name_plural = "kill switches"
        constraints = [
            models.UniqueConstraint(
                fields=["scope", "namespace", "target"],
                condition=Q(lifted_at__isnull=True),
                name="kill_switch_stands_once",
            )
        ]
        indexes = [models.Index(fields=["lifted_at", "namespace"])]

    def __str__(self) -> str:
        return f"kill switch over {self.kill_target}"

    @property
    def kill_target(self) -> KillTarget:
        return KillTarget(KillScope(self.scope), self.namespace, self.target, self.label)


class AttemptConduct(models.Model):
    """What policy last saw one attempt do, what it said of that, and what followed."""

    attempt_uid = models.UUIDField(primary_key=True)
    goal_uid = models.UUIDField(db_index=True)
    namespace = models.CharField(max_length=63)
    agent_name = models.CharField(max_length=63)
    # What was judged last: the store's mark, the bundles in force, the input's digest.
    mark = models.CharField(max_length=32, default="")
    bundles = models.CharField(max_length=71, default="")
    input_digest = models.CharField(max_length=71, default="")
    document = models.JSONField(default=dict)  # the input policy saw
    outcome = models.CharField(max_length=16, default="")  # effective; "" while nothing was judged
    messages = models.JSONField(default=list)  # of bundles that count or warn
    says = models.CharField(max_length=71, default="")  # digest of which rules spoke
    decision_uid = models.UUIDField(null=True)  # the recorded decision that says so
    judged_at = models.DateTimeField(null=True)
    recorded_at = models.DateTimeField(null=True)
    is_awaited = models.BooleanField(default=False)  # judged again although nothing is new
    is_undecided = models.BooleanField(default=False)  # policy could not answer
    is_closed = models.BooleanField(default=False)  # it ended, and its last spans were judged
    confidence = models.FloatField(null=True)  # mean over its judged actions
    confidence_samples = models.PositiveIntegerField(default=0)
    accepted = models.JSONField(default=list)  # rules that a human let pass for this attempt
    # What followed. `standing` is "", "asked" (paused until the answer) or "stopped".
    standing = models.CharField(max_length=8, default="")
    answer = models.CharField(max_length=8, default="")  # of the approval, once it is decided
    approval_uid = models.UUIDField(null=True)
    offence_span_id = models.CharField(max_length=16, default="")
    offence_at = models.DateTimeField(null=True)  # the store had the span, by the store's clock
    drifted_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)  # the workload, as the cluster says

    class Meta:
        ordering = ["-judged_at"]
        indexes = [models.Index(fields=["namespace", "agent_name", "-judged_at"])]

    def __str__(self) -> str:
        return f"conduct of {self.attempt_uid}: {self.outcome or 'not judged'}"

    @property
    def revoked_after_seconds(self) -> float | None:
        """From the offending span to the revocation; None where either is unknown."""
        return self._after_offence(self.revoked_at)

    @property
    def ended_after_seconds(self) -> float | None:
        """From the offending span to the end of the workload; None where either is unknown."""
        return self._after_offence(self.ended_at)

    def _after_offence(self, moment: dt.datetime | None) -> float | None:
        if self.offence_at is None or moment is None:
            return None
        return max((moment - self.offence_at).total_seconds(), 0.0)
