"""Rows of the fleet: registered agents, their attempts, outputs and identities."""

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone

from agents.domain.states import ACTIVE_STATES, FINISHED_STATES, AttemptState, DesiredState
from agents.gpus.models import GpuDevice, GpuNode
from agents.survey.models import ClusterSurvey, ClusterWorkload

__all__ = [
    "Agent",
    "Attempt",
    "ClusterSurvey",
    "ClusterWorkload",
    "GpuDevice",
    "GpuNode",
    "IssuedSvid",
    "JoinToken",
    "TaskOutput",
]


class Agent(models.Model):
    """A registered non-human actor, as its manifest declares it."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    namespace = models.CharField(max_length=63)
    name = models.CharField(max_length=63)
    role = models.CharField(max_length=63)
    image = models.CharField(max_length=512)
    service_account = models.CharField(max_length=63)
    generation = models.PositiveIntegerField(default=1)
    manifest = models.JSONField()  # the whole document, in canonical form
    registered_by = models.CharField(max_length=512)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)
    retired_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["namespace", "name"]
        constraints = [models.UniqueConstraint(fields=["namespace", "name"], name="agent_once")]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Attempt(models.Model):
    """One run of one task as one workload."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    goal_uid = models.UUIDField()
    namespace = models.CharField(max_length=63)
    graph_digest = models.CharField(max_length=71)
    iteration = models.PositiveIntegerField()
    task = models.CharField(max_length=63)
    number = models.PositiveIntegerField()  # from 1 within task and iteration
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="attempts")
    agent_name = models.CharField(max_length=63)
    agent_role = models.CharField(max_length=63, default="")
    service_account = models.CharField(max_length=63)
    spiffe_id = models.CharField(max_length=512)
    workload = models.CharField(max_length=63, unique=True)
    specification = models.JSONField(default=dict)  # command, image, env, limits as judged
    state = models.CharField(
        max_length=16,
        choices=[(s.value, s.value) for s in AttemptState],
        default=AttemptState.PENDING,
    )
    desired = models.CharField(
        max_length=16,
        choices=[(s.value, s.value) for s in DesiredState],
        default=DesiredState.RUNNING,
    )
    reason = models.CharField(max_length=64, default="")
    message = models.TextField(default="")
    exit_code = models.IntegerField(null=True)
    gpus = models.PositiveIntegerField(default=0)
    gpu_ids = models.JSONField(default=list)
    gpu_allowance_ms = models.BigIntegerField(default=0)  # reserved for this attempt in all
    running_ms = models.BigIntegerField(default=0)
    gpu_ms = models.BigIntegerField(default=0)  # metered by the cluster
    gpu_settled_ms = models.BigIntegerField(default=0)  # of which the ledger has settled
    gpu_idle_held_ms = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    last_seen_at = models.DateTimeField(null=True)
    identity_revoked_at = models.DateTimeField(null=True)
    identity_revoked_reason = models.CharField(max_length=255, default="")

    class Meta:
        ordering = ["created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["goal_uid", "graph_digest", "iteration", "task", "number"],
                name="attempt_once",
            ),
            models.CheckConstraint(
                condition=Q(gpu_settled_ms__lte=models.F("gpu_allowance_ms")),
                name="attempt_settles_within_allowance",
            ),
        ]
        indexes = [
            models.Index(fields=["goal_uid", "created_at"]),
            models.Index(fields=["goal_uid", "state", "gpus"]),  # what a Goal holds, summed
            models.Index(fields=["agent", "-created_at"]),
            models.Index(fields=["state", "namespace"]),
        ]

    def __str__(self) -> str:
        return f"{self.workload} ({self.state})"

    @property
    def is_finished(self) -> bool:
        return AttemptState(self.state) in FINISHED_STATES

    @property
    def is_active(self) -> bool:
        return AttemptState(self.state) in ACTIVE_STATES


class TaskOutput(models.Model):
    """A named thing an attempt produced for the tasks after it."""

    attempt = models.ForeignKey(Attempt, on_delete=models.CASCADE, related_name="outputs")
    name = models.CharField(max_length=63)
    value = models.JSONField(null=True)
    digest = models.CharField(max_length=71, default="")
    span_id = models.CharField(max_length=16, default="")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["attempt", "name"], name="output_once_per_attempt")
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.attempt_id}"


class JoinToken(models.Model):
    """The one-time secret an attempt trades for its identity; only its hash is kept."""

    attempt = models.OneToOneField(Attempt, on_delete=models.CASCADE, related_name="join_token")
    token_hash = models.CharField(max_length=64, unique=True)  # SHA-256, hex
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)
    used_by_key = models.CharField(max_length=64, default="")  # RFC 7638 thumbprint of its key

    def __str__(self) -> str:
        return f"join token of {self.attempt_id}"


class PodBinding(models.Model):
    """A pod of an attempt that proved itself, and the one key it may get documents for.

    A paused attempt of a cluster has no pod and a resumed one a new pod, hence many for one.
    """

    attempt = models.ForeignKey(Attempt, on_delete=models.CASCADE, related_name="pods")
    pod_uid = models.CharField(max_length=64, unique=True)
    pod = models.CharField(max_length=253)
    node = models.CharField(max_length=253, default="")
    key_thumbprint = models.CharField(max_length=64)  # RFC 7638
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"pod {self.pod} of {self.attempt_id}"


class IssuedSvid(models.Model):
    """One identity document that was issued; the document itself is not kept."""

    attempt = models.ForeignKey(Attempt, on_delete=models.CASCADE, related_name="svids")
    kind = models.CharField(max_length=4, choices=[("x509", "x509"), ("jwt", "jwt")])
    serial = models.CharField(max_length=64)
    spiffe_id = models.CharField(max_length=512)
    issued_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ["-issued_at"]
        constraints = [models.UniqueConstraint(fields=["kind", "serial"], name="svid_serial_once")]

    def __str__(self) -> str:
        return f"{self.kind} SVID {self.serial}"


class AgentRevision(models.Model):
    """One generation of an agent's registration, kept when the next takes its place."""

    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="revisions")
    generation = models.PositiveIntegerField()
    manifest = models.JSONField()
    registered_by = models.CharField(max_length=512)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-generation"]
        constraints = [
            models.UniqueConstraint(fields=["agent", "generation"], name="revision_once_per_agent")
        ]

    def __str__(self) -> str:
        return f"generation {self.generation} of {self.agent_id}"
