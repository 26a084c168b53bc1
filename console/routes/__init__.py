"""The URLs of the product, one module for each part, and how their values are written."""

from django.urls import register_converter

UUID_PATTERN = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
NAME_PATTERN = "[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?"


class GoalConverter:
    """A Goal in a URL: its uid, or its namespace and name."""

    regex = f"(?:{UUID_PATTERN}|(?!{UUID_PATTERN}/){NAME_PATTERN}/{NAME_PATTERN})"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: object) -> str:
        return str(value)


class DigestConverter:
    """A digest in a URL."""

    regex = "sha256:[0-9a-f]{64}"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


class SpanConverter(DigestConverter):
    """A span id in a URL."""

    regex = "[0-9a-f]{16}"


register_converter(GoalConverter, "goal")
register_converter(DigestConverter, "digest")
register_converter(SpanConverter, "span")
