"""Forms of Goals: the filter of the list, the manifest, steering."""

from django import forms

from goals.domain.states import Phase

MANIFEST_MAX = 1 << 20  # agents.domain.documents.MAX_BYTES
REASON_MAX = 2000


class GoalFilter(forms.Form):
    """Which Goals to list."""

    q = forms.CharField(required=False, max_length=200)
    phase = forms.ChoiceField(
        required=False, choices=[("", "Any phase"), *((p.value, p.value) for p in Phase)]
    )
    namespace = forms.CharField(required=False, max_length=63)


class ManifestForm(forms.Form):
    """A Goal as YAML or JSON."""

    manifest = forms.CharField(
        max_length=MANIFEST_MAX,
        strip=False,
        error_messages={"required": "Paste or type a manifest of kind Goal."},
    )
    step = forms.ChoiceField(
        choices=[(word, word) for word in ("check", "apply", "to_form", "to_yaml")]
    )
    # In the form's mode the manifest is what the fields are written into.
    mode = forms.ChoiceField(choices=[("yaml", "YAML"), ("form", "Form")], required=False)
    generation = forms.IntegerField(required=False, min_value=0)  # that an edit began from


class SteerForm(forms.Form):
    """What to do with a Goal."""

    step = forms.ChoiceField(
        choices=[(word, word) for word in ("pause", "resume", "cancel", "delete")]
    )
    reason = forms.CharField(required=False, max_length=REASON_MAX)


class RecallForm(forms.Form):
    """Why a digest is bad, or no longer is."""

    reason = forms.CharField(
        max_length=REASON_MAX,
        error_messages={"required": "Say why, in a sentence; it is kept in the journal."},
    )


class RollbackForm(forms.Form):
    """Why an earlier release is served again."""

    reason = forms.CharField(
        max_length=REASON_MAX,
        error_messages={"required": "Say why, in a sentence; it is kept with the release."},
    )
