"""Forms of governance: journal search, new tokens."""

from django import forms

from governance.domain import EVERY_NAMESPACE, Permission

TOKEN_DAYS_MAX = 365


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
