"""Bodies are bounded before Django reads them, declared or not."""

import json
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator

from console.body_limit import BODY_MAX_BYTES, BodyLimit
from console.upload_credential import is_credential_held

CHUNK = 1 << 20


class Reader:
    """An application that reads the whole body and answers with its size."""

    def __init__(self) -> None:
        self.seen = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            self.seen += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(self.seen).encode()})


async def ask(
    *, path: str = "/goals/new", headers: dict[str, str] | None = None, chunks: int = 1
) -> tuple[int, bytes, int]:
    """Status, body, and how many bytes the application was given."""
    reader = Reader()
    raw = [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": raw}

    def is_held(headers: Any) -> bool:
        return headers.get(b"authorization") == b"Bearer known"

    talk = ApplicationCommunicator(BodyLimit(reader, is_held=is_held), scope)
    for index in range(chunks):
        await talk.send_input(
            {"type": "http.request", "body": b"x" * CHUNK, "more_body": index < chunks - 1}
        )
    start = await talk.receive_output(timeout=5)
    body = await talk.receive_output(timeout=5)
    return start["status"], body["body"], reader.seen


async def test_a_declared_body_over_the_limit_is_refused_unread() -> None:
    status, body, seen = await ask(headers={"Content-Length": str(BODY_MAX_BYTES + 1)})
    assert (status, seen) == (413, 0)
    problem = json.loads(body)
    assert (problem["title"], problem["status"]) == ("Too large", 413)


async def test_a_chunked_body_is_counted_on_the_fly() -> None:
    status, _, seen = await ask(chunks=20)
    assert status == 413
    assert seen == BODY_MAX_BYTES
    assert await ask(chunks=8) == (200, str(8 * CHUNK).encode(), 8 * CHUNK)


async def test_an_upload_may_be_large_but_not_anonymous(settings: Any) -> None:
    path, known = "/api/v1/artifacts", {"Authorization": "Bearer known"}
    for stranger in ({}, {"Authorization": "Bearer forged"}):
        status, _, seen = await ask(path=path, chunks=20, headers=stranger)
        assert (status, seen) == (401, 0)
    status, _, seen = await ask(path=path, chunks=20, headers=known)
    assert (status, seen) == (200, 20 * CHUNK)
    settings.UPLOAD_MAX_BYTES = 10 * CHUNK
    status, _, seen = await ask(path=path, chunks=20, headers=known)
    assert (status, seen) == (413, 10 * CHUNK)


@pytest.mark.django_db(transaction=True)  # it closes connections that are too old
def test_a_credential_is_held_while_it_lives(people: dict[str, Any], twins: Any) -> None:
    from django.test import Client

    from governance.access import principal_of
    from governance.services.tokens import create_token, revoke_token

    person = principal_of(people["operator"])
    token, text = create_token(people["operator"], principal=person, name="test")
    client = Client()
    client.force_login(people["operator"])
    session = client.cookies["sessionid"].value
    bearer = {b"authorization": f"Bearer {text}".encode()}
    cookie = {b"cookie": f"a=b; sessionid={session}".encode()}
    assert is_credential_held(bearer)
    assert is_credential_held(cookie)
    revoke_token(token.uid, principal=person)
    client.logout()
    assert not is_credential_held(bearer)
    assert not is_credential_held(cookie)
    for header in (b"", b"Bearer ", b"Bearer x.y.z", b"Bearer \xff", b"Basic eDp5", b"Bearer"):
        assert not is_credential_held({b"authorization": header})
    assert not is_credential_held({b"cookie": b"sessionid="})


@pytest.mark.parametrize("header", ["-1", "abc", "1e9"])
async def test_a_length_that_is_no_number_does_not_switch_the_count_off(header: str) -> None:
    status, _, _ = await ask(headers={"Content-Length": header}, chunks=20)
    assert status == 413
