"""Each form that changes something asks first, or is listed among those that need not."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.console.real_tower import ROOT

TEMPLATES: Final = Path(ROOT) / "templates"
NAMES = re.compile(r"{% url '([\w:-]+)'")

# Forms that ask nothing before they are sent, by where they lead, with the reason.
ASKS_NOTHING: Final = {
    "login": "nothing is lost",
    "logout": "one signs in again",
    "theme": "a preference",
    "keys": "a preference",
    "audit_check": "only reads",
    "audit_verify": "only reads, and keeps nothing",
    "pack_make": "a download",
    "range_pack_make": "a download",
    "policy_work": "only a draft is judged or saved; what is saved judges nothing yet",
    "people_list": "an account without which nobody loses anything; can be deactivated",
    "token_list": "can be revoked",
    "profile_password": "asks for the old password",
    "approval_answer": "the card is the question; three interactions on a phone",
    "approval_bulk": "the page is the question, with the sum",
    "approval_ask": "a question",
    "approval_reply": "an answer to a question",
    "delegation_list": "ends by itself and can be revoked",
    "catalogue_register": "the page shows the manifest; nothing runs of it before a Goal names it",
    "catalogue_ignore": "can be restored",
    "catalogue_restore": "can be ignored again",
    "kill_switch": "the page is the question, and every key press counts",
}
# Of forms with several buttons or uses, those that can be undone ask nothing.
SOME_ASK_NOTHING: Final = {
    "goal_steer": "pause and resume undo each other; cancel and delete ask",
    "person_roles": "a role that is given can be taken; taking asks",
}


def forms() -> list[tuple[str, str, str]]:
    """Template, where it leads, and the text of each form that posts."""
    found = []
    for path in sorted(TEMPLATES.rglob("*.html")):
        for piece in path.read_text().split("<form")[1:]:
            text = piece.partition("</form>")[0]
            if 'method="post"' in text:
                action = re.search(r"action=\"(.*?)\"\s*[\n>]", text, re.S)
                names = NAMES.findall(action[1]) if action else []
                place = str(path.relative_to(TEMPLATES))
                found.append((place, names[0] if names else "", text))
    return found


FORMS: Final = forms()


def test_the_forms_are_found() -> None:
    assert len(FORMS) > 30
    assert {name for _, name, _ in FORMS} >= {*ASKS_NOTHING}


@pytest.mark.parametrize(("place", "name", "text"), FORMS, ids=[f"{p}:{n}" for p, n, _ in FORMS])
def test_a_form_asks_first_or_is_reviewed(place: str, name: str, text: str) -> None:
    if name in ASKS_NOTHING or name in SOME_ASK_NOTHING:
        return
    assert "data-confirm=" in text, f"{place}: the form to {name or 'its own page'} asks nothing"
    assert "data-confirm-detail=" in text, f"{place}: it does not say what will happen"


@pytest.mark.parametrize("name", sorted(SOME_ASK_NOTHING))
def test_of_several_uses_the_final_one_asks(name: str) -> None:
    assert any("data-confirm=" in text for _, one, text in FORMS if one == name)
