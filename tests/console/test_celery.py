"""The doorbell: every name that is rung or scheduled is a task, and a broker that is gone costs
nothing."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from console.celery import app
from goals import events


def registered() -> set[str]:
    app.loader.import_default_modules()
    return set(app.tasks)


def test_every_scheduled_task_is_registered() -> None:
    names = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert names
    assert names <= registered()


def test_every_task_named_in_events_is_registered() -> None:
    names = {value for name, value in vars(events).items() if name.endswith("_TASK")}
    assert len(names) == 3
    assert names <= registered()


def test_every_scheduled_ring_goes_away_unheard() -> None:
    for name, entry in app.conf.beat_schedule.items():
        assert entry["options"]["expires"] > 0, name


@pytest.fixture
def nobody_listens(tmp_path: Path) -> Iterator[None]:
    """The broker is away, whichever one this run has."""
    away = Celery("away", broker=f"redis+socket://{tmp_path}/nobody.sock", set_as_current=False)
    away.conf.broker_transport_options = app.conf.broker_transport_options
    away.set_current()
    yield
    app.set_current()


def test_ringing_without_a_broker_gives_up_at_once(caplog: Any, nobody_listens: None) -> None:
    began = time.monotonic()
    events.ring("00000000-0000-0000-0000-000000000000")
    assert time.monotonic() - began < 1.0
    assert "not rung" in caplog.text


@pytest.mark.django_db
def test_the_jwt_key_is_rotated_and_old_tokens_still_hold(twins: Any) -> None:
    from agents.services.keys import rotate_identity_keys
    from governance.models import JournalRecord

    domain = twins.trust_domain
    identity = f"spiffe://{domain.name}/ns/default/sa/a"
    token = domain.issue_jwt(identity, audience=["clearance"], ttl_seconds=60, claims={})
    keys = len(domain.bundle()["keys"])
    assert rotate_identity_keys() is True
    assert len(domain.bundle()["keys"]) == keys + 1
    assert domain.validate_jwt(token.token, audience="clearance").spiffe_id == identity
    assert JournalRecord.objects.filter(action="identity.key_rotated").count() == 1


@pytest.mark.django_db
def test_a_trust_domain_that_keeps_its_own_keys_is_left_alone() -> None:
    from agents.services.keys import rotate_identity_keys

    assert rotate_identity_keys(trust_domain=object()) is False  # type: ignore[arg-type]
