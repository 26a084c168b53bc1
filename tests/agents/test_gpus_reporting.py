"""A node that reports over the API: for itself alone, within bounds, once, and over TLS."""

import datetime as dt
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from agents.attestation.base import AttestationUnavailable
from agents.attestation.nodes import MemoryNodeReviewer, get_node_reviewer
from agents.gpus.domain import (
    ComputeProcess,
    DeviceKind,
    NodeReading,
    Owner,
    Sample,
    Source,
    Throttle,
)
from agents.gpus.processes import named
from agents.gpus.reporting import Reporter, ReportFailed, token_in
from agents.gpus.reports import report_of
from agents.gpus.sampler import Sampler
from agents.models import GpuDevice, GpuNode
from governance.access import principal_of
from governance.models import JournalRecord, Membership
from governance.services.tokens import create_token
from tests.authorities import PrivateAuthority
from tests.goals.gpu_fleet import card, part

ROOT = Path(__file__).resolve().parents[2]
POD = "0f5ad5a3-8ab0-4d7e-9b1e-5a7c1f0e9a11"
db = pytest.mark.django_db


@pytest.fixture
def reviewer(twins: Any, settings: Any) -> MemoryNodeReviewer:
    """A cluster that vouches for the token of n1's sampler."""
    settings.CLUSTER_URL = f"memory:?gpus=4&attests=1&is={os.getpid()}"
    found = get_node_reviewer()
    assert isinstance(found, MemoryNodeReviewer)
    found.nodes = {"token-of-n1": "n1"}
    return found


def _sample(**changes: Any) -> Sample:
    whole = card(1, throttles=(Throttle.SW_THERMAL,), is_mig_on=True)
    running = ComputeProcess(pid=7, memory_bytes=1, program="python", pod_uid=POD)
    devices = (whole, part(whole, 0, processes=(running,)))
    return replace(Sample(node="n1", at=timezone.now(), devices=devices), **changes)


def _put(
    sample: Sample, *, token: str = "token-of-n1", node: str = "n1", **changes: Any
) -> tuple[int, str]:
    answer = Client().put(
        f"/api/v1/nodes/{node}/gpus", json.dumps({**report_of(sample), **changes}),
        content_type="application/json", headers={"Authorization": f"Bearer {token}"},
    )  # fmt: skip
    return answer.status_code, answer.content.decode()


@db
def test_a_report_is_what_the_sampler_saw(reviewer: MemoryNodeReviewer) -> None:
    sample = _sample(driver_version="575.57.08")
    assert _put(sample) == (204, "")
    node = GpuNode.objects.get()
    assert (node.name, node.source, node.is_measured, node.driver_version) == (
        "n1", Source.NODE, True, "575.57.08",
    )  # fmt: skip
    whole, slice_ = GpuDevice.objects.order_by("parent_id")
    assert (whole.utilisation, whole.is_hot, whole.throttles) == (0.63, True, ["sw-thermal"])
    assert (slice_.kind, slice_.parent_id) == (DeviceKind.SLICE, whole.device_id)
    (process,) = slice_.processes or ()
    assert (process["pod_uid"], process["owner"], process["program"]) == (POD, "unknown", "python")


@db
def test_a_token_speaks_for_its_own_node_alone(reviewer: MemoryNodeReviewer) -> None:
    status, said = _put(_sample(), node="n2")
    assert (status, "speaks for node n1, not for n2" in said) == (403, True)
    assert _put(_sample(), token="somebody's")[0] == 401
    reviewer.fail_next(AttestationUnavailable("Kubernetes cannot be asked: down"))
    assert _put(_sample())[0] == 503
    assert Client().put("/api/v1/nodes/n1/gpus").status_code == 401
    assert not GpuNode.objects.exists()


@db
def test_without_a_cluster_an_operator_of_every_namespace_may(
    twins: Any, people: dict[str, Any]
) -> None:
    _, token = create_token(
        people["operator"], principal=principal_of(people["operator"]), name="node"
    )
    status, said = _put(_sample(), token=token)
    assert (status, "in every namespace" in said) == (403, True)
    Membership.objects.create(user=people["operator"], namespace="*", role="operator")
    _, token = create_token(
        people["operator"], principal=principal_of(people["operator"]), name="node-2"
    )
    assert _put(_sample(), token=token, node="n7") == (204, "")
    status, said = _put(_sample(), token="eyJ.a.b")
    assert (status, "NODE_SERVICE_ACCOUNT" in said) == (401, True)


@db
def test_the_same_report_again_and_one_that_came_late_change_nothing(
    reviewer: MemoryNodeReviewer,
) -> None:
    first = _sample(devices=(card(1, xids=(79,)),))
    for _ in range(3):
        assert _put(first)[0] == 204
    assert len(GpuDevice.objects.get().xids) == 1
    assert JournalRecord.objects.filter(action="gpu.xid").count() == 1
    late = replace(first, at=first.at - dt.timedelta(seconds=5), devices=(card(1, xids=(48,)),))
    assert _put(late)[0] == 204
    assert [one["code"] for one in GpuDevice.objects.get().xids] == [79]


@db
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"at": "2026-01-31T02:14:00Z"}, "set the clock"),
        ({"at": "2026-01-31T02:14:00"}, "with its time zone"),
        ({"devices": [{"id": "x", "kind": "card", "utilisation": 7}]}, "utilisation"),
        ({"devices": [{"id": "x", "kind": "card"}] * 300}, "devices"),
        ({"devices": [{"id": "x", "kind": "card", "held_by": "somebody"}]}, "held_by"),
        ({"held_by": {"x": "somebody"}}, "held_by"),
    ],
)
def test_what_no_sampler_says_is_refused_by_its_field(
    reviewer: MemoryNodeReviewer, changes: dict[str, Any], says: str
) -> None:
    status, said = _put(_sample(), **changes)
    assert (status, says in said) == (422, True), said
    assert not GpuNode.objects.exists()


@db
def test_cards_that_do_not_answer_keep_their_last_figures(reviewer: MemoryNodeReviewer) -> None:
    _put(_sample())
    _put(_sample(devices=(), trouble="NVML: driver not loaded"))
    assert GpuNode.objects.get().trouble == "NVML: driver not loaded"
    assert GpuDevice.objects.count() == 2


# --- The node's side -----------------------------------------------------------------------------


class _Cards:
    def __init__(self, *devices: Any) -> None:
        self.devices = devices

    def read(self) -> Any:
        return NodeReading(devices=self.devices)

    def close(self) -> None:
        return


def test_a_sampler_without_a_cluster_says_nothing_of_who_holds_what() -> None:
    kept: list[Sample] = []
    own = ComputeProcess(pid=os.getpid(), memory_bytes=None)
    sampler = Sampler(
        "n1", cards=_Cards(card(1, processes=(own,))), cluster=None, record=kept.append
    )
    assert sampler.step()
    (sample,) = kept
    assert sample.held_by is None
    assert sample.devices[0].processes is not None
    (process,) = sample.devices[0].processes
    assert process.owner is Owner.UNKNOWN  # foreign is a word for the control plane to say
    assert Sampler("n1", cards=_Cards(), cluster=None, record=kept.append).step()
    assert kept[-1].trouble == ""


def test_a_report_that_fails_is_tried_anew_and_errors_of_cards_are_kept() -> None:
    said: list[tuple[int, ...]] = []

    def record(sample: Sample) -> None:
        said.append(sample.devices[0].xids)
        if len(said) == 1:
            raise ReportFailed("down")

    cards = _Cards(card(1, xids=(79,)))
    sampler = Sampler("n1", cards=cards, cluster=None, record=record)
    assert not sampler.step()
    cards.devices = (card(1),)
    assert sampler.step()
    assert said == [(79,), (79,)]


@pytest.mark.parametrize(
    ("line", "uid"),
    [
        (f"0::/kubepods.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice/x", POD),
        (f"11:memory:/kubepods/besteffort/pod{POD}/0123", POD),
        ("0::/user.slice/session-1.scope", ""),
    ],
)  # fmt: skip
def test_the_kernel_says_which_pod_a_process_is_of(tmp_path: Path, line: str, uid: str) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (python3) S 1 7 7 0")
    (tmp_path / "7" / "cgroup").write_text(f"{line}\n")
    found = named(ComputeProcess(pid=7, memory_bytes=None), {}, proc=tmp_path)
    assert (found.pod_uid, found.program) == (uid, "python3")


@pytest.mark.parametrize(
    "url", ["http://example.com", "ftp://x", "https://", "example.com", "https://x?a=b"]
)
def test_a_token_goes_nowhere_in_the_clear(url: str) -> None:
    with pytest.raises(ValueError, match="--report-to"):
        Reporter(url, token=lambda: "t")


class _Server(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.heard = (self.path, self.headers["Authorization"], self.rfile.read(length))  # type: ignore[attr-defined]
        status, headers, body = self.server.answers  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class _Quiet(ThreadingHTTPServer):
    """Says nothing of callers that leave in the middle of a handshake."""

    def handle_error(self, request: object, client_address: object) -> None:
        return


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Serving, unless the parameter says that it is not yet."""
    one: Any = _Quiet(("127.0.0.1", 0), _Server)
    one.answers, one.heard, one.is_serving = (204, {}, b""), None, False
    if getattr(request, "param", True):
        _serve(one)
    yield one
    if one.is_serving:
        one.shutdown()
    one.server_close()


def _serve(server: Any) -> None:
    server.is_serving = True
    threading.Thread(target=server.serve_forever, daemon=True).start()


def test_the_token_is_read_with_each_report_and_sent_to_the_path_of_the_node(
    server: Any, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    report = Reporter(f"http://127.0.0.1:{server.server_address[1]}/base", token=token_in(file))
    for token in ("first", "second"):
        file.write_text(f"{token}\n")
        report(_sample(node="n/1"))
        path, sent, body = server.heard
        assert (path, sent) == ("/base/api/v1/nodes/n%2F1/gpus", f"Bearer {token}")
        assert len(json.loads(body)["devices"]) == 2
    file.unlink()
    with pytest.raises(ReportFailed, match=r"--token-file: .*No such file"):
        report(_sample())


@pytest.fixture
def authority(tmp_path: Path) -> PrivateAuthority:
    return PrivateAuthority(tmp_path / "authority")


def _secured(server: Any, certificate: tuple[Path, Path]) -> str:
    """The URL of the server, which shows this certificate from now on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return f"https://127.0.0.1:{server.server_address[1]}"


@pytest.mark.parametrize("server", [False], indirect=True)
def test_the_program_reports_over_tls_of_a_private_authority(
    server: Any, authority: PrivateAuthority, tmp_path: Path
) -> None:
    url = _secured(server, authority.server("127.0.0.1"))
    _serve(server)
    (tmp_path / "token").write_text("of-the-node")
    command = [
        sys.executable, "manage.py", "node", "--once", "--name", "far-node", "--report-to", url,
        "--token-file", str(tmp_path / "token"), "--ca-file", str(authority.path),
    ]  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "CLEARANCE_DATA": str(tmp_path / "none")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    path, sent, _ = server.heard
    assert (path, sent) == ("/api/v1/nodes/far-node/gpus", "Bearer of-the-node")


@pytest.mark.parametrize("server", [False], indirect=True)
@pytest.mark.parametrize(
    ("hosts", "until_hours", "trusted", "said"),
    [
        (("other.example",), 1, "ca.crt", "name that is in it"),
        (("127.0.0.1",), -1, "ca.crt", "has expired.: renew it"),
        (("127.0.0.1",), 1, None, "--ca-file"),
        (("127.0.0.1",), 1, "foreign", "--ca-file"),
        (("127.0.0.1",), 1, "server.key", "no PEM certificate is in it"),
        (("127.0.0.1",), 1, "nowhere", "No such file or directory"),
    ],
)
def test_a_server_that_is_not_the_one_gets_no_token(
    server: Any, authority: PrivateAuthority, hosts: tuple[str, ...], until_hours: int,
    trusted: str | None, said: str,
) -> None:  # fmt: skip
    until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=until_hours)
    url = _secured(server, authority.server(*hosts, until=until))
    _serve(server)
    file = None if trusted is None else authority.directory / trusted
    if trusted == "foreign":
        file = PrivateAuthority(authority.directory / "foreign", name="Foreign").path
    report = Reporter(url, token=lambda: "secret", authority=file)
    with pytest.raises(ReportFailed, match=said) as failed:
        report(_sample())
    assert "_ssl.c" not in str(failed.value)
    assert "secret" not in str(failed.value)
    assert server.heard is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((403, {}, b'{"detail": "Not your node."}'), "HTTP 403: Not your node."),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), "HTTP 302"),
        ((500, {}, b"<html>"), "HTTP 500: no explanation"),
    ],
)
def test_an_answer_that_is_no_yes_is_said_and_never_followed(
    server: Any, answer: Any, why: str
) -> None:
    server.answers = answer
    report = Reporter(f"http://127.0.0.1:{server.server_address[1]}", token=lambda: "t")
    with pytest.raises(ReportFailed, match=why):
        report(_sample())


@pytest.mark.django_db(transaction=True)
def test_the_program_reports_to_a_server_without_a_database(
    people: dict[str, Any], twins: Any, live_server: Any, tmp_path: Path
) -> None:
    Membership.objects.create(user=people["operator"], namespace="*", role="operator")
    _, token = create_token(
        people["operator"], principal=principal_of(people["operator"]), name="node"
    )
    (tmp_path / "token").write_text(token)
    command = [
        sys.executable, "manage.py", "node", "--once", "--name", "far-node",
        "--report-to", live_server.url, "--token-file", str(tmp_path / "token"),
    ]  # fmt: skip
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "CLEARANCE_DATA": str(tmp_path / "none"),
        "DATABASE_URL": "postgres://nobody@127.0.0.1:1/none",
    }  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert GpuNode.objects.get().name == "far-node"
    (tmp_path / "token").write_text("clr_nonsense")
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "HTTP 401" in done.stderr) == (1, True)
    assert "clr_nonsense" not in done.stderr
