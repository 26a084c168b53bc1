"""Environment variables read strictly: a value that cannot be understood stops the start."""

import os
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS = frozenset({"0", "false", "no", "off", ""})


class StrictEnv(environ.Env):
    """django-environ with two differences: booleans are strict, and `NAME_FILE` names a secret.

    A variable `NAME` may be given as `NAME_FILE`, the path of a file that holds the value; white
    space around it is dropped. Giving both is an error.
    """

    def strict_bool(self, name: str, *, default: bool) -> bool:
        """`name` as a boolean. Raises ImproperlyConfigured for any word it does not know."""
        word = self.text(name, default="1" if default else "0").lower()
        if word in TRUE_WORDS:
            return True
        if word in FALSE_WORDS:
            return False
        raise ImproperlyConfigured(f"{name}={word!r} is not a boolean: use 1 or 0.")

    def text(self, name: str, *, default: str = "") -> str:
        """`name` as text, from the variable or from the file `NAME_FILE` names."""
        path = os.environ.get(f"{name}_FILE")
        if path is None:
            return os.environ.get(name, default)
        if name in os.environ:
            raise ImproperlyConfigured(f"Both {name} and {name}_FILE are set: keep one.")
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE={path}: {error.strerror}.") from error

    def kept_secret(self, path: Path) -> str:
        """The secret in a file of ours, "" where there is none yet."""
        try:
            return path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise ImproperlyConfigured(f"{path}: {error.strerror}.") from error

    def whole_number(self, name: str, *, default: int, low: int, high: int) -> int:
        """`name` as an integer within [low, high]."""
        word = self.text(name, default=str(default))
        try:
            value = int(word)
        except ValueError as error:
            raise ImproperlyConfigured(f"{name}={word!r} is not a whole number.") from error
        if not low <= value <= high:
            raise ImproperlyConfigured(f"{name}={value} is outside {low}..{high}.")
        return value

    def words(self, name: str, *, default: str = "") -> list[str]:
        """`name` as a comma-separated list; empty items are dropped."""
        return [
            word.strip() for word in self.text(name, default=default).split(",") if word.strip()
        ]
