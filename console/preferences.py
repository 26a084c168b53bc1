"""What a person prefers of the frame, kept in cookies so that no page flashes."""

from dataclasses import dataclass
from typing import Final

from django.http import HttpRequest, HttpResponse

KEPT_SECONDS: Final = 365 * 86_400


@dataclass(frozen=True, slots=True)
class Preference:
    """One choice among a few words; the first is what holds while nothing is chosen."""

    name: str
    choices: tuple[str, ...]

    def of(self, request: HttpRequest) -> str:
        """The chosen word; an unknown one counts as none."""
        chosen = request.COOKIES.get(self.name, "")
        return chosen if chosen in self.choices else self.choices[0]

    def keep(self, response: HttpResponse, word: str, *, secure: bool) -> None:
        """Remember the word for a year."""
        response.set_cookie(
            self.name, word, max_age=KEPT_SECONDS, samesite="Lax", secure=secure, httponly=True
        )


THEME: Final = Preference("theme", ("system", "light", "dark"))
# WCAG 2.1.4: shortcuts of a single character can be turned off.
KEYS: Final = Preference("keys", ("on", "off"))
