"""Who asked for a Goal with kubectl, and who changed it: stamped where nobody else can write it.

The API server says who made a request to admission alone. The names stand in annotations with a
seal over them, their object, and what the latest of them asked, under the key that all processes of
Clearance share: a name that somebody writes by hand, or copies from another Goal, counts for
nothing, in any namespace and whether or not admission was asked.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.utils.crypto import constant_time_compare, salted_hmac

from agents.admission.review import Object, Review

REQUESTED_BY: Final = "orchestration.ai/requested-by"
EDITED_BY: Final = "orchestration.ai/edited-by"  # a JSON list, the latest last
SEAL: Final = "orchestration.ai/persons-seal"
STAMPS: Final = (REQUESTED_BY, EDITED_BY, SEAL)
SALT: Final = "orchestration.ai/persons"
PERSONS_MAX: Final = 100  # of one Goal; each is barred from approving it
# The operator's field managers (`goals.operator.mirror`) and the client's own.
OWN_MANAGERS: Final = frozenset({"clearance", "clearance-console", "clearance-status"})
# Annotations that tools and we ourselves keep on an object: nobody asks for anything with them.
KEPT: Final = ("kubectl.kubernetes.io/", "orchestration.ai/")


class TooManyPersons(ValueError):
    """No more people can change this Goal."""


@dataclass(frozen=True, slots=True)
class Persons:
    """Who asked, and who changed what is asked, the latest last. "" for one that is not known."""

    requested_by: str = ""
    edited_by: tuple[str, ...] = ()

    @property
    def latest(self) -> str:
        """Who has asked for what the Goal says, if that is sealed (`are_current`)."""
        return self.edited_by[-1] if self.edited_by else self.requested_by


def read_persons(found: Mapping[str, Any]) -> Persons:
    """The persons stamped on a Goal; nobody where no seal of ours holds."""
    stamps = (found.get("metadata") or {}).get("annotations") or {}
    try:
        edited_by = json.loads(stamps.get(EDITED_BY, "[]"))
        persons = Persons(stamps.get(REQUESTED_BY, ""), tuple(map(str, edited_by)))
    except (ValueError, TypeError):
        return Persons()
    asked, _, seal = str(stamps.get(SEAL, "")).partition(":")
    holds = constant_time_compare(seal, _seal(found, persons, asked))
    return persons if seal and holds else Persons()


def are_current(found: Mapping[str, Any]) -> bool:
    """Is what the Goal says what the latest of its persons asked, and nobody unknown since?"""
    stamps = (found.get("metadata") or {}).get("annotations") or {}
    asked = str(stamps.get(SEAL, "")).partition(":")[0]
    return read_persons(found) != Persons() and asked == asked_digest(found)


def stamp(review: Review, *, own_users: frozenset[str]) -> list[Object]:
    """The JSON patch that writes the persons of a Goal down. Raises TooManyPersons."""
    is_ours = review.username in own_users and review.field_manager in OWN_MANAGERS
    if not review.is_update:
        persons = Persons() if is_ours else Persons(requested_by=review.username)
    else:
        persons = read_persons(review.before)
        if not is_ours and asked_digest(review.found) != asked_digest(review.before):
            others = tuple(one for one in persons.edited_by if one != review.username)
            persons = Persons(persons.requested_by, (*others, review.username))
    if len(persons.edited_by) > PERSONS_MAX:
        raise TooManyPersons(
            f"{PERSONS_MAX} people have changed this Goal already, and as many are written down: "
            "make another Goal."
        )
    return _patch(review.found, _stamps(review.found, persons))


def asked_digest(found: Mapping[str, Any]) -> str:
    """SHA-256 (first 32 hex digits) of what a resource asks: spec, labels and annotations."""
    metadata = found.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    asked = [
        found.get("spec"),
        metadata.get("labels") or {},
        {key: one for key, one in annotations.items() if not key.startswith(KEPT)},
    ]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]


def _seal(found: Mapping[str, Any], persons: Persons, asked: str) -> str:
    metadata = found.get("metadata") or {}
    # A name that the API server makes up is not known yet when it is asked for.
    place = [metadata.get("namespace"), metadata.get("generateName") or metadata.get("name")]
    content = json.dumps([*place, persons.requested_by, persons.edited_by, asked])
    return salted_hmac(SALT, content, algorithm="sha256").hexdigest()


def _stamps(found: Mapping[str, Any], persons: Persons) -> dict[str, str]:
    if persons == Persons():
        return {}
    asked = asked_digest(found)
    stamps = {SEAL: f"{asked}:{_seal(found, persons, asked)}"}
    if persons.requested_by:
        stamps[REQUESTED_BY] = persons.requested_by
    if persons.edited_by:
        stamps[EDITED_BY] = json.dumps(persons.edited_by, ensure_ascii=False)
    return stamps


def _patch(found: Mapping[str, Any], stamps: Mapping[str, str]) -> list[Object]:
    annotations = (found.get("metadata") or {}).get("annotations")
    if annotations is None:
        value = dict(stamps)
        return [{"op": "add", "path": "/metadata/annotations", "value": value}] if value else []
    operations: list[Object] = []
    for name in STAMPS:
        path = f"/metadata/annotations/{name.replace('/', '~1')}"  # RFC 6901
        if name in stamps and annotations.get(name) != stamps[name]:
            operations.append({"op": "add", "path": path, "value": stamps[name]})
        elif name in annotations and name not in stamps:
            operations.append({"op": "remove", "path": path})
    return operations
