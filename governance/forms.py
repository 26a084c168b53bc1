"""Forms of governance: journal search, new tokens."""

from django import forms

from governance.domain import EVERY_NAMESPACE, Permission
from governance.form_words import PlainForm

TOKEN_DAYS_MAX = 365


class TokenForm(PlainForm):
    """A new API token."""

    name = forms.CharField(max_length=63, error_messages={"required": "say what the token is for."})
    permissions = forms.MultipleChoiceField(
        required=False, choices=[(p.value, p.value.replace("_", " ")) for p in Permission]
    )
    namespace = forms.RegexField(
        r"^(\*|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)$",
        initial=EVERY_NAMESPACE,
        error_messages={"invalid": "A namespace's name, or * for all that are yours."},
    )
    days = forms.IntegerField(min_value=1, max_value=TOKEN_DAYS_MAX, initial=30)
