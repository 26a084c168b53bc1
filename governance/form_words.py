"""Forms that say what to do, in our words: the page puts the field's name before them."""

from typing import Any, Final

from django import forms

# By the codes of Django's own errors. A field's own words stand before these.
WORDS: Final = {
    "required": "fill it in.",
    "max_length": "write at most %(limit_value)d characters; these are %(show_value)d.",
    "min_value": "write %(limit_value)s or more.",
    "max_value": "write %(limit_value)s or less.",
    "invalid_choice": "choose one of those offered; this is none of them.",
    "invalid_list": "choose of those offered.",
    "max_digits": "write fewer digits.",
    "max_decimal_places": "write at most six decimal places.",
    "max_whole_digits": "write a smaller number.",
    "null_characters_not_allowed": "remove the NUL character (U+0000); it cannot be kept.",
}
CHOOSE: Final = "choose one."
INVALID: Final[tuple[tuple[type[forms.Field], str], ...]] = (
    (forms.DecimalField, "write a number, such as 1.5."),  # before those that it is one of
    (forms.IntegerField, "write a whole number."),
    (forms.DateTimeField, "write a time in UTC, such as 2026-01-31 18:00."),
    (forms.UUIDField, "choose one of those offered; this is none of them."),
)


class PlainForm(forms.Form):
    """A form that never says "This field is required."."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        for field in self.fields.values():
            for code, words in _words_of(field).items():
                if field.error_messages.get(code) == _djangos(field).get(code):
                    field.error_messages[code] = words


def _words_of(field: forms.Field) -> dict[str, str]:
    found = dict(WORDS)
    if isinstance(field, forms.ChoiceField):
        found["required"] = CHOOSE
    for kind, words in INVALID:
        if isinstance(field, kind):
            return {**found, "invalid": words}
    return found


def _djangos(field: forms.Field) -> dict[str, Any]:
    """What a field of this class says where nobody chose other words."""
    found: dict[str, Any] = {}
    for kind in reversed(type(field).__mro__):
        found.update(getattr(kind, "default_error_messages", {}))
    return found
