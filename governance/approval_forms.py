"""Forms of approvals: an answer, several at once, a question, a delegation."""

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Final

from django import forms

from governance.domain import MODEL_MAX
from governance.form_words import PlainForm
from governance.services.approval_bulk import BULK_MAX
from governance.services.approvals import REASON_MAX

# What browsers send of a datetime-local field, and what people type; all of it UTC.
MOMENTS: Final = ("%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M")
CAP_MAX: Final = 10_000
LESS: Final = ("gpus", "parallel", "last_iteration", "model")
WHY: Final = {"required": "Say why, in a sentence; it is kept with the decision."}


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


class AnswerForm(PlainForm):
    """An answer to an approval; all but decision and reason only where an amount is asked for."""

    decision = forms.ChoiceField(choices=[("approve", "Approve"), ("deny", "Deny")])
    reason = forms.CharField(
        max_length=REASON_MAX,
        error_messages={"required": "Say why, in a sentence; it is kept with the decision."},
    )
    request_digest = forms.CharField(max_length=71)
    grant = forms.DecimalField(required=False, max_digits=20, decimal_places=6)
    until = forms.DateTimeField(required=False, input_formats=MOMENTS)
    gpus = forms.IntegerField(required=False, min_value=1, max_value=CAP_MAX)
    parallel = forms.IntegerField(required=False, min_value=1, max_value=CAP_MAX)
    last_iteration = forms.BooleanField(required=False)
    model = forms.CharField(required=False, max_length=MODEL_MAX)

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

    def answer(self) -> dict[str, Any]:
        """The answer as the service takes it; nothing of it when it is a denial."""
        found = self.cleaned_data
        if found["decision"] != "approve" or self.measure is None:
            return {}
        less = {name: found[name] for name in LESS if found[name]}
        parts = {"grant": found["grant"], "degrade": less or None}
        if found["until"] is not None:
            parts["until"] = found["until"].isoformat()
        return {name: value for name, value in parts.items() if value is not None}

    def clean_grant(self) -> int | None:
        """The grant in the ledger's unit; None where all of it is granted, or none was typed."""
        typed: Decimal | None = self.cleaned_data.get("grant")
        if typed is None or self.measure is None:
            return None
        if not typed.is_finite():
            raise forms.ValidationError("write a number, such as 1.5.")
        amount = int((typed * self.measure.scale).to_integral_value(ROUND_FLOOR))
        if not 0 < amount <= self.asked:
            raise forms.ValidationError(
                f"More than 0 and at most {self.asked_typed} {self.measure.name} (what was asked)."
            )
        return amount if amount < self.asked else None


class BulkForm(PlainForm):
    """Approvals to answer at once, each as `uid digest`."""

    decision = forms.ChoiceField(choices=[("approve", "Approve"), ("deny", "Deny")])
    reason = forms.CharField(max_length=REASON_MAX, error_messages=WHY)
    seen = forms.TypedMultipleChoiceField(coerce=str)

    def __init__(self, data: Any = None) -> None:
        super().__init__(data)
        given = data.getlist("seen")[: BULK_MAX + 1] if data is not None else []
        self.fields["seen"].choices = [(one, one) for one in given]  # type: ignore[attr-defined]


class MessageForm(PlainForm):
    """A question about an approval, or an answer to it."""

    to = forms.CharField(required=False, max_length=150)
    text = forms.CharField(
        max_length=REASON_MAX, error_messages={"required": "Write what you ask or answer."}
    )


class DelegationForm(PlainForm):
    """Lending the right to approve."""

    to = forms.CharField(max_length=150, error_messages={"required": "Choose a person."})
    namespace = forms.RegexField(
        r"^(\*|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)$",
        error_messages={"invalid": "A namespace's name.", "required": "Choose a namespace."},
    )
    until = forms.DateTimeField(
        input_formats=MOMENTS,
        error_messages={
            "required": "Say when it ends (UTC).",
            "invalid": "A moment in UTC, such as 2026-01-31 18:00.",
        },
    )
    reason = forms.CharField(max_length=REASON_MAX, error_messages=WHY)
