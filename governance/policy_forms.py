"""Forms of the policy pages: what to do with a draft, and moves between stages."""

from typing import Any

from django import forms

from governance.domain import Stage
from governance.form_words import PlainForm
from governance.services.drafts import NAME_MAX
from governance.services.impact import DEFAULT_DECISIONS, MAX_DECISIONS

HISTORY_CHOICES = (200, DEFAULT_DECISIONS, MAX_DECISIONS)  # decisions of each point
WORKS = ("check", "evaluate", "test", "diff", "impact", "save")


class WorkForm(PlainForm):
    """One thing to do with the draft in the same form; its files are read apart."""

    do = forms.ChoiceField(choices=[(word, word) for word in WORKS])
    name = forms.CharField(max_length=NAME_MAX)
    base = forms.IntegerField(min_value=0)
    decision = forms.UUIDField(required=False)
    other = forms.IntegerField(required=False, min_value=1)
    limit = forms.TypedChoiceField(
        required=False,
        coerce=int,
        empty_value=str(DEFAULT_DECISIONS),
        choices=[(number, f"{number:,}") for number in HISTORY_CHOICES],
    )

    def clean(self) -> dict[str, Any]:
        """What the action at hand needs must be there."""
        cleaned = super().clean() or self.cleaned_data
        if cleaned.get("do") == "evaluate" and not cleaned.get("decision"):
            self.add_error("decision", "Choose a recorded input to evaluate against.")
        if cleaned.get("do") == "diff" and not cleaned.get("other"):
            self.add_error("other", "Choose a version to compare with.")
        return cleaned


class StageForm(PlainForm):
    """Where a version is to go, and what was in force when the person looked (0: nothing)."""

    stage = forms.ChoiceField(choices=[(stage.value, stage.value) for stage in Stage])
    seen = forms.IntegerField(min_value=0)


class ReturnForm(PlainForm):
    """What was in force when the person looked."""

    seen = forms.IntegerField(min_value=1)
