"""Rows of the shell: failed sign-ins and answers kept for repeated requests."""

from django.db import models
from django.utils import timezone


class LoginFailure(models.Model):
    """One failed sign-in, kept for as long as it counts."""

    username = models.CharField(max_length=150)
    address = models.GenericIPAddressField(null=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=["username", "at"]), models.Index(fields=["address", "at"])]

    def __str__(self) -> str:
        return f"{self.username} from {self.address}"


class KeptAnswer(models.Model):
    """The answer to a request that carried an `Idempotency-Key`; `status` None while it runs."""

    caller = models.CharField(max_length=64)  # SHA-256 of the credential, hex
    key = models.CharField(max_length=200)
    fingerprint = models.CharField(max_length=64)  # SHA-256 of method, path and body
    status = models.PositiveSmallIntegerField(null=True)
    content_type = models.CharField(max_length=128, default="")
    body = models.BinaryField(default=b"")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["caller", "key"], name="answer_once_per_key")
        ]
        indexes = [models.Index(fields=["created_at"])]

    def __str__(self) -> str:
        return f"{self.key}: {self.status}"
