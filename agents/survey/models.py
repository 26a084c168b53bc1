"""Rows of the cluster's own workloads, those that are not ours, and of what looked at them."""

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone


class ClusterSurvey(models.Model):
    """The one row that says when the cluster was last heard, and what could not be read of it."""

    cluster = models.CharField(max_length=253, default="")  # CLUSTER_URL's context
    heard_at = models.DateTimeField(null=True)  # nodes and pods, by list and watch
    trouble = models.TextField(default="")  # why it is not heard now, "" while it is
    nodes = models.PositiveIntegerField(default=0)
    pods = models.PositiveIntegerField(default=0)
    is_truncated = models.BooleanField(default=False)
    scanned_at = models.DateTimeField(null=True)  # the catalogue's lists
    scan_trouble = models.TextField(default="")  # what could not be listed, "" when all was

    def __str__(self) -> str:
        return f"survey of {self.cluster or 'the cluster'}"


class ClusterWorkload(models.Model):
    """A workload or service account of the cluster that is not ours; `uid` follows from its name.

    The upper half is what its pods say, every few seconds; the lower what its template says, once
    a minute, what that looks like, and what a person made of it.
    """

    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=63)
    namespace = models.CharField(max_length=63)
    name = models.CharField(max_length=253)
    state = models.CharField(max_length=16, default="")  # of its pods; "" without any
    reason = models.CharField(max_length=200, default="")
    pods = models.PositiveIntegerField(default=0)
    running = models.PositiveIntegerField(default=0)
    gpus = models.PositiveIntegerField(default=0)  # held or asked for by its active pods
    nodes = models.JSONField(default=list)
    images = models.JSONField(default=list)
    service_account = models.CharField(max_length=253, default="")
    started_at = models.DateTimeField(null=True)
    is_listed = models.BooleanField(default=False)  # its template or account was read
    facts = models.JSONField(default=dict)  # of the template: names and counts, never values
    score = models.PositiveSmallIntegerField(default=0)  # 0..100
    evidence = models.JSONField(default=list)  # {"code", "points", "text"}, weightiest first
    agent = models.ForeignKey(
        "agents.Agent", on_delete=models.SET_NULL, null=True, related_name="workloads"
    )
    ignored_at = models.DateTimeField(null=True)
    ignored_by = models.CharField(max_length=512, default="")
    ignored_reason = models.CharField(max_length=255, default="")
    first_seen_at = models.DateTimeField(default=timezone.now)
    changed_at = models.DateTimeField(default=timezone.now)
    gone_at = models.DateTimeField(null=True)  # kept for the mark that a person gave it

    class Meta:
        ordering = ["-score", "namespace", "kind", "name"]
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "namespace", "name"], name="cluster_workload_once"
            )
        ]
        indexes = [
            models.Index(fields=["namespace", "name"]),
            models.Index(fields=["changed_at"]),
            models.Index(fields=["state"], condition=~Q(state=""), name="cluster_workload_live"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"
