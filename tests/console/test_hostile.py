"""Large, broken and forged input over real HTTP: right status, bounded memory, no half effect."""

import base64
import contextlib
import gzip
import http.client
import json
import re
import socket
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.console.real_tower import RealTower, eventually
from tests.kill.people import Person, sign_in, team_member
from tests.otlp_exports import export, span

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MIB = 1 << 20
UPLOAD_MAX_BYTES = 8 * MIB
GROWTH_MAX_MIB = 200  # of a process under one hostile request
SVID_SECONDS = 10  # the shortest there may be, so that one can be seen to expire
SOCKET_SECONDS = 30.0
PIECE = b"\0" * MIB
SPAN = export(span("00f067aa0ba902b7")).SerializeToString()
# A download can only be broken off by raising, which the server logs for its operators.
CHANGED_BLOB = re.compile(r"\nlineage\.registry\.base\.\w+: .*sha256:")
AGENT = """
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {name: token_giver, namespace: default}
spec:
  role: worker
  image: tests/token_giver:1.0
  command: [python, tests/kill/token_giver.py]
  serviceAccountName: token-giver
  resources: {limits: {nvidia.com/gpu: 1}}
  consumes: []
  produces: [nothing]
  estimate: {seconds: 60}
  scope: {releases: [], artifacts: [model]}
"""
GOAL = """
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {{name: {name}, namespace: default}}
spec: {{objective: "level >= 100 %", budget: {budget}, agents: [{agents}]}}
"""


class Attacked:
    """A tower with people, and one agent at work whose bearer token is known."""

    def __init__(self, directory: Path) -> None:
        self.tower = RealTower(
            directory,
            UPLOAD_MAX_BYTES=str(UPLOAD_MAX_BYTES),
            SVID_TTL_SECONDS=str(SVID_SECONDS),
            TMPDIR=str(directory),
        )

    def prepare(self) -> None:
        self.tower.start().ready()
        self.admin, self.team = sign_in(self.tower), team_member(self.tower)
        self.apply("give-token", budget="50 GPU-minutes")
        eventually(self.token)

    def apply(self, name: str, *, budget: str) -> None:
        text = f"{AGENT}---{GOAL.format(name=name, budget=budget, agents='token_giver')}"
        self.team.insist("POST", "apply", text.encode())

    def token(self, goal: str = "give-token") -> str:
        folder = self.tower.data / "cluster" / "workloads"
        for path in folder.glob(f"{goal}-token-giver-*/workdir/token"):
            return path.read_text()
        return ""

    def memory_mib(self, name: str) -> float:
        text = Path(f"/proc/{self.tower.of(name)['pid']}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found is not None
        return int(found.group(1)) / 1024

    @contextlib.contextmanager
    def bounded(self, name: str) -> Iterator[None]:
        """Holds when the process grows little meanwhile, at its highest, and stays the same one."""
        before, pid = self.memory_mib(name), self.tower.of(name)["pid"]
        highest, is_over = [before], threading.Event()

        def watch() -> None:
            while not is_over.wait(0.02):
                with contextlib.suppress(OSError):
                    highest[0] = max(highest[0], self.memory_mib(name))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            watcher.join()
        assert highest[0] - before < GROWTH_MAX_MIB, (name, before, highest[0])
        assert self.tower.of(name)["pid"] == pid

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        path = f"file:{self.tower.data}/clearance.sqlite3?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True)) as database:
            return database.execute(sql).fetchall()

    def kept(self) -> tuple[Any, ...]:
        """How much there is of everything that a request could leave behind."""
        tables = ("goals_goal", "agents_agent", "lineage_artifact", "governance_approval")
        counts = [self.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables]
        uploads = self.tower.data / "registry" / "uploads"
        left = sorted(path.name for path in uploads.iterdir()) if uploads.exists() else []
        return (*counts, left)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    one = Attacked(tmp_path_factory.mktemp("hostile"))
    try:
        one.prepare()
        yield one
    finally:
        one.tower.close()


def send(
    attacked: Attacked,
    port: str,
    method: str,
    path: str,
    *,
    body: Any = None,
    token: str = "",
    is_chunked: bool = False,
    **headers: str,
) -> tuple[int, dict[str, Any]]:
    """Status and problem document of one request; what the server did not want to read is cut."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", attacked.tower.ports[port], timeout=SOCKET_SECONDS
    )
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        named["Authorization"] = f"Bearer {token}"
    with contextlib.closing(connection):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body=body, headers=named, encode_chunked=is_chunked)
        answer = connection.getresponse()
        content = answer.read()
        kind = answer.headers.get("Content-Type", "")
    assert b"Traceback" not in content
    is_json = "json" in kind
    return answer.status, json.loads(content) if is_json and content else {}


def web(attacked: Attacked, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
    return send(attacked, "WEB_PORT", method, f"/api/v1/{path}", **options)


def traces(attacked: Attacked, body: Any, **options: Any) -> tuple[int, dict[str, Any]]:
    options.setdefault("token", attacked.token())
    options.setdefault("Content_Type", "application/x-protobuf")
    return send(attacked, "OTLP_PORT", "POST", "/v1/traces", body=body, **options)


def is_problem(answer: tuple[int, dict[str, Any]], status: int) -> bool:
    """Whether it is that status with a document that says what is wrong."""
    return answer[0] == status and answer[1].get("status") == status and bool(answer[1]["detail"])


def zeros(gib: int) -> bytes:
    """A gzip of zeros, a thousandth of their size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packer.compress(PIECE * 16) for _ in range(gib * 64)]
    return b"".join([*pieces, packer.flush()])


# --- OTLP ---


def test_a_gzip_bomb_is_refused_in_bounded_memory(attacked: Attacked) -> None:
    bomb = zeros(1)
    assert len(bomb) < 2 * MIB
    with attacked.bounded("otlp"):
        for _ in range(3):
            status, _ = traces(attacked, bomb, Content_Encoding="gzip")
            assert status == 413
        assert traces(attacked, bomb, Content_Encoding="gzip", token="")[0] == 401
    with attacked.bounded("web"):
        assert web(
            attacked, "POST", "apply", body=bomb, token=attacked.team.token, Content_Encoding="gzip"
        )[0] in (400, 415, 422)  # fmt: skip


@pytest.mark.parametrize(
    ("body", "options", "status"),
    [
        (b"\xff\xff\xff\xff", {}, 400),
        (b"{", {"Content_Type": "application/json"}, 400),
        (b"[" * 100_000, {"Content_Type": "application/json"}, 400),
        (b"hello", {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(b"x" * 1000, mtime=0)[:20], {"Content_Encoding": "gzip"}, 400),
        (b"", {"Content_Type": "text/plain"}, 415),
        (b"", {"Content_Encoding": "br"}, 415),
    ],
)
def test_malformed_exports_are_refused(
    attacked: Attacked, body: bytes, options: dict[str, str], status: int
) -> None:
    assert traces(attacked, body, **options)[0] == status


# --- uploads ---


def endless(limit_mib: int = 1024) -> Iterator[bytes]:
    for _ in range(limit_mib):
        yield PIECE


@pytest.mark.parametrize("token", ["nobody", "forged", "somebody"])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_gigabyte_is_refused_and_nothing_of_it_is_kept(
    attacked: Attacked, token: str, is_chunked: bool
) -> None:
    kept = attacked.kept()
    length = {"Transfer_Encoding": "chunked"} if is_chunked else {"Content_Length": str(1 << 30)}
    bearer = {"nobody": "", "forged": "x" * 40, "somebody": attacked.team.token}[token]
    sent = [0]

    def counted() -> Iterator[bytes]:
        for piece in endless():
            sent[0] += len(piece)
            yield piece

    with attacked.bounded("web"):
        answer = web(
            attacked, "POST", "artifacts?kind=model&name=big",
            body=counted(), token=bearer, is_chunked=is_chunked, **length,
        )  # fmt: skip
    assert is_problem(answer, 413) or (token != "somebody" and is_problem(answer, 401)), answer
    assert sent[0] < 128 * MIB
    assert attacked.kept() == kept


def test_an_upload_that_breaks_off_leaves_nothing(attacked: Attacked) -> None:
    kept = attacked.kept()
    with socket.create_connection(("127.0.0.1", attacked.tower.ports["WEB_PORT"])) as client:
        client.sendall(
            b"POST /api/v1/artifacts?kind=model&name=half HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Length: 4194304\r\nAuthorization: Bearer "
            + attacked.team.token.encode() + b"\r\n\r\n" + PIECE
        )  # fmt: skip
    assert web(attacked, "GET", "artifacts", token=attacked.team.token)[0] == 200
    assert attacked.kept() == kept


# --- manifests and JSON ---

MANY = ", ".join(f"agent{number}" for number in range(10_000))
LAUGHS = "a: &a [x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)},*{chr(97 + n)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("apply", b"{"),
        ("apply", b"kind: [\n"),
        ("apply", b"\xff\xfe\x00"),
        ("apply", b"[" * 50_000),
        ("apply", b"kind: !!python/object/apply:os.system [id]"),
        ("apply", LAUGHS.encode()),
        ("apply", b"null"),
        ("apply", b"- 1\n- 2\n"),
        ("apply", GOAL.format(name="x", budget="-5 GPU-minutes", agents="token_giver").encode()),
        ("apply", GOAL.format(name="x", budget=".nan", agents="token_giver").encode()),
        ("apply", GOAL.format(name="x", budget="1e400 tokens", agents="token_giver").encode()),
        ("apply", GOAL.format(name="x", budget="1 token", agents=MANY).encode()),
        ("plan", GOAL.format(name="x", budget="1 token", agents=MANY).encode()),
        ("login", b"{"),
        ("login", b'{"username": ["a"], "password": 1e999}'),
        ("releases", b'{"service": "\\u0000", "environment": "x", "digest": "sha256:0"}'),
        ("releases", b"[" * 100_000),
    ],
)
def test_malformed_bodies_get_a_problem_and_leave_nothing(
    attacked: Attacked, path: str, body: bytes
) -> None:
    kept = attacked.kept()
    began = time.monotonic()
    status, problem = web(
        attacked, "POST", path, body=body, token=attacked.team.token,
        Content_Type="application/json",
    )  # fmt: skip
    assert status in (400, 422), problem
    assert problem["status"] == status
    assert problem["detail"]
    assert time.monotonic() - began < 10
    assert attacked.kept() == kept


@pytest.mark.parametrize(
    "path",
    [
        "goals/%00", "goals/" + "x" * 5000, "spans/..%2f..%2fetc/causes", "artifacts/sha256:zz",
        "goals?cursor=%00%ff", "attempts/not-a-uuid", "attempts?goal=1", "journal?cursor=AAAA",
        "approvals/00000000-0000-0000-0000-000000000000", "goals?limit=99999999999999999999",
    ],
)  # fmt: skip
def test_hostile_addresses_get_an_answer_without_a_traceback(attacked: Attacked, path: str) -> None:
    status, problem = web(attacked, "GET", path, token=attacked.admin.token)
    assert status in (200, 400, 404, 422), problem


# --- identities ---


def forged(token: str) -> dict[str, str]:
    """Tokens that are almost right."""
    head, claims, signature = token.split(".")

    def packed(document: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    content = json.loads(base64.urlsafe_b64decode(claims + "=="))
    later = packed({**content, "exp": content["exp"] + 3600})
    unsigned = packed({"alg": "none", "typ": "JWT"})
    shared = packed({"alg": "HS256", "typ": "JWT"})
    flipped = signature[:-10] + ("A" if signature[-10] != "A" else "B") + signature[-9:]
    return {
        "longer life": f"{head}.{later}.{signature}",
        "no algorithm": f"{unsigned}.{claims}.",
        "shared secret": f"{shared}.{claims}.{signature}",
        "changed signature": f"{head}.{claims}.{flipped}",
        "no signature": f"{head}.{claims}.",
        "half": f"{head}.{claims}",
        "nothing": "..",
        "not one": "é" * 10,
    }


def both(attacked: Attacked, token: str) -> set[int]:
    """What the API and the ingest answer to a token."""
    return {
        web(attacked, "GET", "self", token=token)[0],
        traces(attacked, SPAN, token=token)[0],
    }


def test_forged_tokens_are_refused_by_both(attacked: Attacked) -> None:
    eventually(lambda: both(attacked, attacked.token()) == {200})
    for name, token in forged(attacked.token()).items():
        text = token.encode("utf-8").decode("latin-1")
        assert both(attacked, text) == {401}, name


def test_a_token_expires(attacked: Attacked) -> None:
    token = attacked.token()
    assert both(attacked, token) == {200}
    eventually(lambda: both(attacked, token) == {401}, seconds=SVID_SECONDS + 75)
    assert both(attacked, attacked.token()) == {200}


def test_a_revoked_token_is_refused_at_once_and_renews_nothing(attacked: Attacked) -> None:
    attacked.apply("revoked", budget="50 GPU-minutes")
    token = eventually(lambda: attacked.token("revoked"))
    assert both(attacked, token) == {200}
    uid = attacked.admin.goals()["revoked"]["uid"]
    (attempt,) = attacked.admin.insist("GET", f"attempts?goal={uid}")["results"]
    reason = {"reason": "taken over"}
    attacked.team.insist("POST", f"attempts/{attempt['uid']}/revoke", reason)
    assert both(attacked, token) == {401}
    renewal = json.dumps({"csr": "x", "audience": ["clearance"]}).encode()
    answer = web(attacked, "POST", "identity/renew", body=renewal, token=token,
                 Content_Type="application/json")  # fmt: skip
    assert answer[0] in (401, 422)
    attacked.team.insist("POST", f"goals/{uid}/cancel", {"reason": "done"})


# --- approvals ---


def question(attacked: Attacked, goal: str) -> dict[str, Any]:
    """The open budget question of a Goal."""
    uid = attacked.admin.goals()[goal]["uid"]

    def found() -> Any:
        path = f"approvals?state=pending&goal={uid}"
        return attacked.admin.insist("GET", path)["results"]

    return dict(eventually(found)[0])


def test_an_approval_is_answered_once_however_often_and_by_how_many(attacked: Attacked) -> None:
    attacked.apply("asks", budget="1 GPU-second")
    approval = question(attacked, "asks")

    def answer(person: Person, verb: str = "approve", **changes: Any) -> int:
        body = {"reason": "yes", "request_digest": approval["request_digest"], **changes}
        path = f"approvals/{approval['uid']}/{verb}"
        return person.ask("POST", path, json.dumps(body).encode()).status

    assert answer(attacked.team) == 403
    assert answer(attacked.admin, request_digest="sha256:" + "0" * 64) == 409
    assert answer(attacked.admin, reason=" ") == 422
    assert answer(attacked.admin, grant=10**18) == 422
    assert answer(attacked.admin, grant=-1) == 422
    agent = Person(attacked.tower, attacked.token())
    assert answer(agent) == 403
    verbs = ["approve", "deny"] * 4
    with ThreadPoolExecutor(len(verbs)) as pool:
        statuses = list(pool.map(lambda verb: answer(attacked.admin, verb), verbs))
    assert sorted(statuses) == [200] + [409] * 7
    assert {answer(attacked.admin, verb) for verb in verbs} == {409}
    uid = approval["uid"].replace("-", "")
    grants = attacked.rows(
        f"SELECT count(*) FROM goals_ledgerentry WHERE approval_uid = '{uid}' AND kind = 'grant'"
    )
    assert grants[0][0] == (1 if verbs[statuses.index(200)] == "approve" else 0)


# --- registry ---


def test_a_blob_changed_on_disk_is_never_served_as_good(attacked: Attacked) -> None:
    weights = b"weights " * 100_000
    status, artifact = web(
        attacked, "POST", "artifacts?kind=model&name=checkout", body=weights,
        token=attacked.team.token, Content_Type="application/octet-stream",
    )  # fmt: skip
    assert status == 201
    path = f"/api/v1/artifacts/{artifact['digest']}/content"
    assert download(attacked, path) == weights
    sha256 = artifact["blob_digest"].removeprefix("sha256:")
    (blob,) = (attacked.tower.data / "registry").rglob(sha256)
    blob.chmod(0o600)
    with blob.open("r+b") as file:
        file.seek(len(weights) // 2)
        file.write(b"X")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        download(attacked, path)
    with blob.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises((http.client.IncompleteRead, ConnectionError, AssertionError)):
        download(attacked, path)


def download(attacked: Attacked, path: str) -> bytes:
    connection = http.client.HTTPConnection(
        "127.0.0.1", attacked.tower.ports["WEB_PORT"], timeout=SOCKET_SECONDS
    )
    with contextlib.closing(connection):
        headers = {"Authorization": f"Bearer {attacked.admin.token}"}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()


# --- connections ---


@pytest.mark.parametrize("port", ["WEB_PORT", "OTLP_PORT"])
def test_clients_that_never_finish_do_not_keep_others_out(attacked: Attacked, port: str) -> None:
    address = ("127.0.0.1", attacked.tower.ports[port])
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(address)) for _ in range(100)]
        for number, client in enumerate(slow):
            start = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            if number % 2:
                start = b"POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n"
            client.sendall(start)
        for _ in range(3):
            for client in slow:
                with contextlib.suppress(OSError):
                    client.sendall(b"X")
            began = time.monotonic()
            assert send(attacked, port, "GET", "/healthz")[0] == 200
            assert time.monotonic() - began < 3


def test_after_all_that_no_log_has_a_traceback_and_the_tower_lands_its_goals(
    attacked: Attacked,
) -> None:
    for approval in attacked.admin.insist("GET", "approvals?state=pending")["results"]:
        attacked.admin.answer(approval, grant=None)
    for goal in attacked.admin.goals().values():  # those that have landed already refuse
        attacked.team.ask("POST", f"goals/{goal['uid']}/cancel", b'{"reason": "the end"}')
    landed = {"Cancelled", "Exhausted", "Failed"}
    eventually(lambda: {g["phase"] for g in attacked.admin.goals().values()} <= landed)
    for name in ("web", "otlp", "worker"):
        text = (attacked.tower.data / "logs" / f"{name}.log").read_text(errors="replace")
        assert [one for one in text.split("Traceback")[1:] if not CHANGED_BLOB.search(one)] == []
