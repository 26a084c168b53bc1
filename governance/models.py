"""Rows of governance: the journal, decisions, approvals, policy bundles, memberships."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from governance.domain import ApprovalKind, ApprovalState, Role, Stage
from governance.policy.base import Outcome, PolicyPoint


class JournalHead(models.Model):
    """The single row that serialises appends: how long the chain is and its last hash."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    size = models.BigIntegerField(default=0)
    last_hash = models.CharField(max_length=64)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="journal_has_one_head")]

    def __str__(self) -> str:
        return f"journal of {self.size} records"


class JournalRecord(models.Model):
    """One state change. `canonical` holds the exact bytes that were hashed (RFC 8785 JSON)."""

    seq = models.BigIntegerField(primary_key=True)  # from 0, without gaps
    at = models.DateTimeField()
    actor_kind = models.CharField(max_length=8)
    actor_id = models.CharField(max_length=512)
    action = models.CharField(max_length=64)
    object_kind = models.CharField(max_length=32)
    object_id = models.CharField(max_length=512)
    namespace = models.CharField(max_length=63)
    goal_uid = models.UUIDField(null=True)
    canonical = models.TextField()
    hash = models.CharField(max_length=64)
    leaf_hash = models.BinaryField(max_length=32)  # RFC 9162 leaf hash of `canonical`

    class Meta:
        ordering = ["seq"]
        indexes = [
            models.Index(fields=["goal_uid", "seq"]),
            models.Index(fields=["namespace", "seq"]),
            models.Index(fields=["action", "seq"]),
            models.Index(fields=["actor_id", "seq"]),
            models.Index(fields=["object_id", "seq"]),  # what happened to one agent or person
            models.Index(fields=["goal_uid", "action", "seq"]),  # who changed a Goal
        ]

    def __str__(self) -> str:
        return f"#{self.seq} {self.action}"


class Checkpoint(models.Model):
    """A signed Merkle root over the first `size` records."""

    size = models.BigIntegerField(primary_key=True)
    root_hash = models.CharField(max_length=64)
    note = models.TextField()  # C2SP signed note
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["size"]

    def __str__(self) -> str:
        return f"checkpoint at {self.size}"


class JournalCheck(models.Model):
    """The single row that says how far the journal was verified, and what was found."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    size = models.BigIntegerField(default=0)  # records that hold, from the first
    last_hash = models.CharField(max_length=64)
    frontier = models.JSONField(default=list)  # hashes of the complete subtrees, largest first
    checkpoints = models.BigIntegerField(default=0)  # signed roots that hold
    started_at = models.DateTimeField(default=timezone.now)  # at record 0
    checked_at = models.DateTimeField(null=True)
    whole_at = models.DateTimeField(null=True)  # when all there was had been verified
    flaw_seq = models.BigIntegerField(null=True)
    flaw_why = models.TextField(default="")

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="journal_has_one_check")]

    def __str__(self) -> str:
        return f"journal verified to {self.size}"


class BundleVersion(models.Model):
    """One signed version of a policy bundle and the stage it stands in."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63)
    version = models.PositiveIntegerField()
    digest = models.CharField(max_length=71)
    modules = models.JSONField()  # [{"path", "source"}]
    parameters = models.JSONField(default=dict)  # `data` of the bundle
    stage = models.CharField(
        max_length=8, choices=[(s.value, s.value) for s in Stage], default=Stage.DRAFT
    )
    artifact_digest = models.CharField(max_length=71, default="")
    signature_bundle = models.TextField(default="")
    created_by = models.CharField(max_length=512)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["name", "-version"]
        constraints = [
            models.UniqueConstraint(fields=["name", "version"], name="bundle_version_once"),
            models.UniqueConstraint(
                fields=["name"],
                condition=Q(stage=Stage.ENFORCE),
                name="bundle_one_enforced_version",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.version} ({self.stage})"


class Decision(models.Model):
    """One policy evaluation, with all that is needed to replay it."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    point = models.CharField(max_length=10, choices=[(p.value, p.value) for p in PolicyPoint])
    namespace = models.CharField(max_length=63)
    goal_uid = models.UUIDField(null=True, db_index=True)
    graph_digest = models.CharField(max_length=71, default="")
    subject_kind = models.CharField(max_length=16)  # graph | task | release | attempt
    subject_id = models.CharField(max_length=512)
    bundle_name = models.CharField(max_length=63)
    bundle_digest = models.CharField(max_length=71)
    stage = models.CharField(max_length=8, choices=[(s.value, s.value) for s in Stage])
    input_digest = models.CharField(max_length=71)
    input_canonical = models.TextField()
    outcome = models.CharField(max_length=16, choices=[(o.value, o.value) for o in Outcome])
    messages = models.JSONField(default=list)  # [{"outcome","text","rule","path","line"}]
    error = models.CharField(max_length=16, default="")
    engine = models.CharField(max_length=64, default="")
    duration_seconds = models.FloatField(default=0.0)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-at"]
        indexes = [
            models.Index(fields=["namespace", "-at"]),
            models.Index(fields=["subject_kind", "subject_id"]),
            models.Index(fields=["point", "-at"]),  # inputs to try a policy on, and its replay
            # Hits of each version, counted without reading a decision's input.
            models.Index(fields=["bundle_name", "bundle_digest", "outcome", "namespace"]),
        ]

    def __str__(self) -> str:
        return f"{self.point} {self.subject_id}: {self.outcome}"


class Approval(models.Model):
    """A question to a human, bound to the SHA-256 of one exact request and answered once."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=8, choices=[(k.value, k.value) for k in ApprovalKind])
    namespace = models.CharField(max_length=63)
    goal_uid = models.UUIDField(null=True, db_index=True)
    subject_kind = models.CharField(max_length=16)
    subject_id = models.CharField(max_length=512)
    title = models.CharField(max_length=255)
    request_canonical = models.TextField()
    request_digest = models.CharField(max_length=71)
    facts = models.JSONField(default=list)  # [{"label","value","unknown"}], computed by the system
    agent_words = models.TextField(default="")  # written by the agent, unverified
    state = models.CharField(
        max_length=8,
        choices=[(s.value, s.value) for s in ApprovalState],
        default=ApprovalState.PENDING,
    )
    requested_by = models.CharField(max_length=512)
    barred = models.JSONField(default=list)  # user names that may not decide (four eyes)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=150, default="")
    reason = models.TextField(default="")
    answer = models.JSONField(default=dict)  # {"grant": 60000, "until": "...", "degrade": {...}}
    quorum = models.PositiveSmallIntegerField(default=1)  # distinct people that must approve
    decided_for = models.CharField(max_length=150, default="")  # who delegated the right
    waits_on = models.CharField(max_length=150, default="")  # who was asked and has not answered
    escalates_at = models.DateTimeField(null=True)
    escalated_at = models.DateTimeField(null=True)
    lapses_at = models.DateTimeField(null=True)  # end of what was granted until then
    lapsed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "subject_kind", "subject_id"],
                condition=Q(state=ApprovalState.PENDING),
                name="approval_one_open_per_subject",
            ),
            models.UniqueConstraint(fields=["request_digest"], name="approval_once_per_request"),
        ]
        indexes = [
            models.Index(fields=["state", "expires_at"]),
            models.Index(fields=["-decided_at"], name="approval_decided"),
            models.Index(
                fields=["lapses_at"],
                condition=Q(lapses_at__isnull=False, lapsed_at__isnull=True),
                name="approval_to_lapse",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} approval of {self.subject_id}: {self.state}"

    @property
    def taken_seconds(self) -> float | None:
        """From the question to the decision; None while it is open."""
        return (self.decided_at - self.created_at).total_seconds() if self.decided_at else None


class ApprovalSignature(models.Model):
    """One person's approval among the several an approval may need; each right counts once."""

    approval = models.ForeignKey(Approval, on_delete=models.CASCADE, related_name="signatures")
    signer = models.CharField(max_length=150)
    right_of = models.CharField(max_length=150)  # the signer, or who delegated the right
    reason = models.TextField()
    answer = models.JSONField(default=dict)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["at"]
        constraints = [
            models.UniqueConstraint(fields=["approval", "signer"], name="signature_once_a_person"),
            models.UniqueConstraint(fields=["approval", "right_of"], name="signature_once_a_right"),
        ]

    def __str__(self) -> str:
        return f"{self.signer} for {self.right_of}: {self.approval_id}"


class ApprovalMessage(models.Model):
    """A question about an open approval, or what was answered to it."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    approval = models.ForeignKey(Approval, on_delete=models.CASCADE, related_name="messages")
    author = models.CharField(max_length=150)
    asked = models.CharField(max_length=150, default="")  # whom a question is for; "" is a reply
    body = models.TextField()
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["at"]

    def __str__(self) -> str:
        return f"{self.author} on {self.approval_id}"


class Delegation(models.Model):
    """An approver's right in a namespace, lent to another person until an end date."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    delegator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="delegations_given"
    )
    delegate = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="delegations_held"
    )
    namespace = models.CharField(max_length=63)
    reason = models.TextField(default="")
    created_at = models.DateTimeField(default=timezone.now)
    ends_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.CharField(max_length=150, default="")

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["delegate", "ends_at"])]

    def __str__(self) -> str:
        return f"{self.delegate_id} for {self.delegator_id} in {self.namespace}"


class Membership(models.Model):
    """A person's role in a namespace; `*` is every namespace."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    namespace = models.CharField(max_length=63)
    role = models.CharField(max_length=16, choices=[(r.value, r.value) for r in Role])
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "namespace", "role"], name="membership_once")
        ]

    def __str__(self) -> str:
        return f"{self.user_id}: {self.role} of {self.namespace}"


class ApiToken(models.Model):
    """A person's bearer token, kept as a hash; it never grants more than its owner has."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens"
    )
    name = models.CharField(max_length=63)
    token_hash = models.CharField(max_length=64, unique=True)  # SHA-256, hex
    permissions = models.JSONField(default=list)
    namespace = models.CharField(max_length=63)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} of {self.user_id}"


class Credential(models.Model):
    """What is known of a person's password beside its hash; no row means nothing special."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="credential",
    )
    must_change = models.BooleanField(default=False)  # somebody else has seen it
    changed_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"credential of {self.user_id}"


class PersonSession(models.Model):
    """Where and when a person signed in; the session itself is Django's."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="person_sessions"
    )
    session_key = models.CharField(max_length=40, unique=True)
    device = models.CharField(max_length=80)  # coarse, e.g. "Firefox on Linux"
    address = models.GenericIPAddressField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    last_seen_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-last_seen_at"]

    def __str__(self) -> str:
        return f"session of {self.user_id} from {self.device}"
