"""Forms of people: somebody new, a role, one's own password."""

from typing import Any

from django import forms

from governance.domain import Role
from governance.form_words import PlainForm
from governance.services.people import PeopleInvalid, parse_grant

ROLE_CHOICES = [(role.value, role.value.replace("_", " ")) for role in Role]
PASSWORD_MAX = 256
TYPE_IT = {"required": "type it."}


class GrantForm(PlainForm):
    """A role in a namespace."""

    namespace = forms.CharField(max_length=63, initial="default")
    role = forms.ChoiceField(choices=ROLE_CHOICES)

    def clean(self) -> dict[str, Any]:
        """The two as one grant, in `grant`."""
        cleaned = super().clean() or self.cleaned_data
        namespace, role = cleaned.get("namespace"), cleaned.get("role")
        if namespace and role:
            try:
                cleaned["grant"] = parse_grant(f"{namespace}:{role}")
            except PeopleInvalid as error:
                self.add_error("namespace", str(error).partition(": ")[2])
        return cleaned


class PersonForm(GrantForm):
    """Somebody to add, with the first of their roles."""

    username = forms.CharField(
        max_length=63, label="Name", error_messages={"required": "say what they sign in with."}
    )
    full_name = forms.CharField(max_length=150, required=False)


class PasswordForm(PlainForm):
    """One's own new password; typed twice, since nobody sees it."""

    old = forms.CharField(
        max_length=PASSWORD_MAX, strip=False, label="Password now", error_messages=TYPE_IT
    )
    new = forms.CharField(
        max_length=PASSWORD_MAX, strip=False, label="New password", error_messages=TYPE_IT
    )
    again = forms.CharField(
        max_length=PASSWORD_MAX,
        strip=False,
        label="New password again",
        error_messages={"required": "type the new one a second time."},
    )

    def clean(self) -> dict[str, Any]:
        """Both must be the same."""
        cleaned = super().clean() or self.cleaned_data
        if cleaned.get("new") and cleaned.get("again") and cleaned["new"] != cleaned["again"]:
            self.add_error("again", "this is not what you typed above.")
        return cleaned
