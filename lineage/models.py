"""Rows of provenance: artifacts by digest and the edges between facts."""

import uuid

from django.db import models
from django.utils import timezone

from lineage.domain import ArtifactKind, NodeKind, Relation


class Artifact(models.Model):
    """Content in the registry, known by the digest of its OCI manifest, with its signatures."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    namespace = models.CharField(max_length=63)
    kind = models.CharField(max_length=16, choices=[(k.value, k.value) for k in ArtifactKind])
    name = models.CharField(max_length=128)
    filename = models.CharField(max_length=255, default="")
    digest = models.CharField(max_length=71)
    blob_digest = models.CharField(max_length=71)
    media_type = models.CharField(max_length=128)
    size_bytes = models.BigIntegerField()
    goal_uid = models.UUIDField(null=True, db_index=True)
    attempt_uid = models.UUIDField(null=True)
    span_id = models.CharField(max_length=16, default="")
    pushed_by_kind = models.CharField(max_length=8)
    pushed_by_id = models.CharField(max_length=512)
    signer = models.CharField(max_length=512, default="")
    blob_bundle = models.TextField(default="")  # sigstore bundle over the blob's SHA-256
    statement_bundle = models.TextField(default="")  # sigstore bundle of the in-toto statement
    predicate_type = models.CharField(max_length=255, default="")
    about = models.JSONField(default=list)  # digests that evidence speaks of
    created_at = models.DateTimeField(default=timezone.now)
    recalled_at = models.DateTimeField(null=True)
    recall_reason = models.TextField(default="")

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["namespace", "digest"], name="artifact_once_per_digest")
        ]
        indexes = [
            models.Index(fields=["namespace", "kind", "-created_at"]),
            models.Index(fields=["-created_at"]),  # the newest of all that one may see
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}@{self.digest}"

    @property
    def is_signed(self) -> bool:
        return bool(self.blob_bundle and self.statement_bundle)


class Edge(models.Model):
    """One edge of the provenance graph; writing it twice changes nothing."""

    namespace = models.CharField(max_length=63)
    goal_uid = models.UUIDField(null=True, db_index=True)
    source_kind = models.CharField(max_length=16, choices=[(k.value, k.value) for k in NodeKind])
    source_id = models.CharField(max_length=512)
    relation = models.CharField(max_length=16, choices=[(r.value, r.value) for r in Relation])
    target_kind = models.CharField(max_length=16, choices=[(k.value, k.value) for k in NodeKind])
    target_id = models.CharField(max_length=512)
    is_signed = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "namespace",  # the same digest may be pushed in two: neither sees the other
                    "source_kind",
                    "source_id",
                    "relation",
                    "target_kind",
                    "target_id",
                ],
                name="edge_once",
            )
        ]
        indexes = [
            models.Index(fields=["target_kind", "target_id"]),
            # What lies before a node, newest first, however many edges lead to it.
            models.Index(
                fields=["namespace", "target_kind", "target_id", "relation", "-id"],
                name="edge_into",
            ),
            models.Index(
                fields=["namespace", "source_kind", "source_id", "relation", "-id"],
                name="edge_out_of",
            ),
        ]

    def __str__(self) -> str:
        return (
            f"{self.source_kind}:{self.source_id} {self.relation} "
            f"{self.target_kind}:{self.target_id}"
        )


class Recall(models.Model):
    """One digest marked as bad, by whom and why; kept when somebody else lifts it."""

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    namespace = models.CharField(max_length=63)
    digest = models.CharField(max_length=71)
    reason = models.TextField()
    recalled_by_kind = models.CharField(max_length=8)
    recalled_by_id = models.CharField(max_length=512)
    recalled_at = models.DateTimeField(default=timezone.now)
    lifted_by_kind = models.CharField(max_length=8, default="")
    lifted_by_id = models.CharField(max_length=512, default="")
    lifted_at = models.DateTimeField(null=True)
    lift_reason = models.TextField(default="")

    class Meta:
        ordering = ["-recalled_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["namespace", "digest"],
                condition=models.Q(lifted_at__isnull=True),
                name="recall_one_open_per_digest",
            )
        ]

    def __str__(self) -> str:
        return f"recall of {self.digest}"
