"""Forms of Goals: the filter of the list, the manifest, steering."""

from django import forms

from goals.domain.killing import KillScope
from goals.domain.states import Phase
from governance.form_words import PlainForm

MANIFEST_MAX = 1 << 20  # agents.domain.documents.MAX_BYTES
REASON_MAX = 2000


class GoalFilter(PlainForm):
    """Which Goals to list."""

    q = forms.CharField(required=False, max_length=200)
    phase = forms.ChoiceField(
        required=False, choices=[("", "Any phase"), *((p.value, p.value) for p in Phase)]
    )
    namespace = forms.CharField(required=False, max_length=63)
    agent = forms.CharField(required=False, max_length=63)
    sort = forms.ChoiceField(
        required=False,
        choices=[
            ("", "Newest first"),
            ("oldest", "Oldest first"),
            ("name", "By name"),
            ("phase", "By phase"),
            ("requester", "By requester"),
        ],
    )


class ManifestForm(PlainForm):
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


class SteerForm(PlainForm):
    """What to do with a Goal."""

    step = forms.ChoiceField(
        choices=[(word, word) for word in ("pause", "resume", "cancel", "delete")]
    )
    reason = forms.CharField(required=False, max_length=REASON_MAX)


class KillForm(PlainForm):
    """What to end at once; `name` is an agent's or a Goal's."""

    scope = forms.ChoiceField(choices=[(one.value, one.value) for one in KillScope])
    namespace = forms.CharField(required=False, max_length=63)
    name = forms.CharField(required=False, max_length=130)
    reason = forms.CharField(required=False, max_length=500)

    def clean(self) -> dict[str, object]:
        wanted = super().clean() or {}
        scope = wanted.get("scope")
        if scope in (KillScope.AGENT, KillScope.NAMESPACE) and not wanted.get("namespace"):
            self.add_error("namespace", "Which namespace?")
        if scope in (KillScope.AGENT, KillScope.GOAL) and not wanted.get("name"):
            self.add_error("name", f"Which {scope}? Give its name.")
        return wanted


class LiftForm(PlainForm):
    """Why things may start again."""

    reason = forms.CharField(required=False, max_length=REASON_MAX)


class RecallForm(PlainForm):
    """Why a digest is bad, or no longer is."""

    reason = forms.CharField(
        max_length=REASON_MAX,
        error_messages={"required": "Say why, in a sentence; it is kept in the journal."},
    )


class RollbackForm(PlainForm):
    """Why an earlier release is served again."""

    reason = forms.CharField(
        max_length=REASON_MAX,
        error_messages={"required": "Say why, in a sentence; it is kept with the release."},
    )


class RevokeForm(PlainForm):
    """Why an identity ends."""

    reason = forms.CharField(
        max_length=255,  # the column's
        error_messages={"required": "Say why, in a sentence; it is kept in the journal."},
    )
