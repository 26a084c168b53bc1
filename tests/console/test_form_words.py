"""No form says what Django says of any: our words name the fix, the page names the field."""

import inspect
from types import ModuleType

import pytest
from django import forms
from django.http import QueryDict

import goals.forms
import governance.approval_forms
import governance.forms
import governance.people_forms
import governance.policy_forms

MODULES = (
    goals.forms,
    governance.approval_forms,
    governance.forms,
    governance.people_forms,
    governance.policy_forms,
)
# How Django's own sentences begin: django/forms/fields.py and django/core/validators.py.
DJANGOS = ("This field is", "Ensure this", "Select a valid", "Enter a", "Null char", "Enter valid")
WRONG = ("", "x" * 3_000_000, "-7000000", "a\x00b", "nonsense", "9" * 40)


def forms_of(module: ModuleType) -> list[type[forms.Form]]:
    found = vars(module).values()
    return [
        one
        for one in found
        if inspect.isclass(one)
        and issubclass(one, forms.Form)
        and one.__module__ == module.__name__
    ]


FORMS = [form for module in MODULES for form in forms_of(module)]


@pytest.mark.parametrize("wrong", WRONG, ids=["empty", "long", "low", "nul", "word", "high"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_what_is_wrong_is_said_in_our_words(form: type[forms.Form], wrong: str) -> None:
    data = QueryDict(mutable=True)
    for name in form.base_fields:
        data[name] = wrong
    bound = form(data)
    bound.is_valid()
    said = [str(error) for errors in bound.errors.values() for error in errors]
    assert [one for one in said if one.startswith(DJANGOS)] == []


def test_every_form_was_found() -> None:
    assert len(FORMS) >= 15
