"""Forms of governance: answers to approvals, journal search, new tokens."""

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from django import forms

from governance.domain import EVERY_NAMESPACE, Permission
from governance.services.approvals import REASON_MAX

TOKEN_DAYS_MAX = 365


@dataclass(frozen=True, slots=True)
class Measure:
    """How people type an amount of one of the ledger's units, and how many units that is."""

    name: str
    scale: int


MEASURES = {
    "gpu_ms": Measure("GPU-seconds", 1000),
    "tokens": Measure("tokens", 1),
    "micro_usd": Measure("USD", 1_000_000),
}


class AnswerForm(forms.Form):
    """An answer to an approval; `grant` only where an amount is asked for."""

    decision = forms.ChoiceField(choices=[("approve", "Approve"), ("deny", "Deny")])
    reason = forms.CharField(
        max_length=REASON_MAX,
        error_messages={"required": "Say why, in a sentence; it is kept with the decision."},
    )
    request_digest = forms.CharField(max_length=71)
    grant = forms.DecimalField(required=False, max_digits=20, decimal_places=6)

    def __init__(self, data: Any = None, *, unit: str = "", asked: int = 0) -> None:
        self.measure = MEASURES.get(unit)
        self.asked = asked
        super().__init__(data)

    @property
    def asked_typed(self) -> str:
        """What was asked, as it is typed into the field."""
        if self.measure is None:
            return ""
        return format((Decimal(self.asked) / self.measure.scale).normalize(), "f")

    def clean_grant(self) -> int | None:
        """The grant in the ledger's unit, None when all or nothing is to be granted."""
        typed: Decimal | None = self.cleaned_data.get("grant")
        if typed is None or self.measure is None:
            return None
        if not typed.is_finite():
            raise forms.ValidationError("Enter a number.")
        amount = int((typed * self.measure.scale).to_integral_value(ROUND_FLOOR))
        if not 0 < amount <= self.asked:
            raise forms.ValidationError(
                f"More than 0 and at most {self.asked_typed} {self.measure.name} (what was asked)."
            )
        return amount


class JournalFilter(forms.Form):
    """Search of the journal; every field narrows."""

    action = forms.CharField(required=False, max_length=64)
    actor = forms.CharField(required=False, max_length=512)
    goal = forms.CharField(required=False, max_length=127)
    seq = forms.IntegerField(required=False, min_value=0, max_value=2**63 - 1)
    hash = forms.RegexField(
        r"^[0-9a-f]{1,64}$",
        required=False,
        error_messages={"invalid": "Up to 64 characters of 0-9 and a-f."},
    )


class TokenForm(forms.Form):
    """A new API token."""

    name = forms.CharField(max_length=63)
    permissions = forms.MultipleChoiceField(
        required=False, choices=[(p.value, p.value) for p in Permission]
    )
    namespace = forms.RegexField(
        r"^(\*|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)$",
        initial=EVERY_NAMESPACE,
        error_messages={"invalid": "A namespace's name, or * for all that are yours."},
    )
    days = forms.IntegerField(min_value=1, max_value=TOKEN_DAYS_MAX, initial=30)
