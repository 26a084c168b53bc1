"""Rows of what is known of the GPUs: one a node, one a device; bounded by the hardware there is.

The database holds the latest state of each device and ten minutes of its figures, and nothing else:
the GPU page must work while the telemetry store is down, and longer histories are a metrics
system's business.
"""

from django.db import models
from django.db.models import Q

from agents.gpus.domain import DeviceKind, Source


class GpuNode(models.Model):
    """A machine whose sampler reports its GPUs."""

    name = models.CharField(max_length=253, primary_key=True)  # RFC 1123 host name
    driver_version = models.CharField(max_length=80, default="")
    is_measured = models.BooleanField(default=False)  # False: declared slots only
    source = models.CharField(max_length=8, default=Source.NODE)  # what its figures come from
    trouble = models.TextField(default="")  # why the cards cannot be read, "" when they can
    heard_at = models.DateTimeField()  # the sampler's last sign of life
    sampled_at = models.DateTimeField(null=True)  # when the cards were last read

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class GpuDevice(models.Model):
    """A card, a MIG slice of one, or a declared slot, as last seen. Unknown figures are null."""

    node = models.ForeignKey(GpuNode, on_delete=models.CASCADE, related_name="devices")
    device_id = models.CharField(max_length=96)  # NVML's UUID, or the slot's name
    kind = models.CharField(max_length=8, choices=[(k.value, k.value) for k in DeviceKind])
    parent_id = models.CharField(max_length=96, default="")  # of a slice: device_id of its card
    position = models.PositiveIntegerField(default=0)
    name = models.CharField(max_length=128, default="")
    profile = models.CharField(max_length=64, default="")
    memory_total_bytes = models.BigIntegerField(null=True)
    memory_used_bytes = models.BigIntegerField(null=True)
    utilisation = models.FloatField(null=True)  # 0..1
    temperature_c = models.IntegerField(null=True)
    temperature_limit_c = models.IntegerField(null=True)
    power_mw = models.BigIntegerField(null=True)
    power_limit_mw = models.BigIntegerField(null=True)
    throttles = models.JSONField(null=True)
    is_hot = models.BooleanField(default=False)  # slowed down by its temperature
    is_ecc_on = models.BooleanField(null=True)
    ecc_corrected = models.BigIntegerField(null=True)  # since the driver was loaded
    ecc_uncorrected = models.BigIntegerField(null=True)
    is_mig_on = models.BooleanField(null=True)
    hears_xids = models.BooleanField(default=False)
    xids = models.JSONField(default=list)  # newest last: {"code", "at"}
    xid_at = models.DateTimeField(null=True)  # of the newest
    processes = models.JSONField(null=True)  # {"pid", "memory_bytes", "owner", "workload", …}
    has_foreign = models.BooleanField(default=False)  # a process that no workload of ours started
    # The workload of an attempt, or `namespace/pod` of somebody else's.
    held_by = models.CharField(max_length=320, default="")
    held_since = models.DateTimeField(null=True)
    idle_since = models.DateTimeField(null=True)  # in this hold; null while busy or unknown
    lost_at = models.DateTimeField(null=True)  # since when the card does not answer
    trouble = models.TextField(default="")
    series = models.JSONField(default=list)  # oldest first: [epoch seconds, % busy, % memory]
    changed_at = models.DateTimeField()

    class Meta:
        ordering = ["node", "parent_id", "position"]
        constraints = [
            models.UniqueConstraint(fields=["node", "device_id"], name="device_once_per_node")
        ]
        indexes = [
            models.Index(fields=["node", "parent_id", "position"]),
            models.Index(fields=["held_by"], condition=~Q(held_by=""), name="device_held"),
        ]

    def __str__(self) -> str:
        return f"{self.node_id}/{self.device_id}"
