"""dcgm-exporter read over HTTP: what it measures, who holds it, and answers that are none."""

import datetime as dt
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agents.gpus.domain import DeviceKind, Source
from agents.models import GpuDevice, GpuNode
from agents.services.gpus import record_sample
from agents.survey.dcgm import Metrics, MetricsUnreadable, read_metrics
from agents.survey.devices import XidMemory, measured
from agents.survey.domain import PodFact
from agents.survey.reading import read_pod
from agents.survey.scraping import BYTES_MAX, ScrapeFailed, fetch_directly, scrape
from governance.models import JournalRecord
from tests.agents.cluster_objects import pod, pods
from tests.agents.dcgm_metrics import metrics_text

AT = dt.datetime(2026, 3, 1, 2, 0, tzinfo=dt.UTC)


def test_figures_are_those_of_the_fields_and_what_is_not_told_is_unknown() -> None:
    found = read_metrics(metrics_text(pods={0: ("team-b", "train-7")}, xids={1: 79}))
    first, second = found.devices
    one = first.reading
    assert (one.id, one.kind) == ("GPU-00000000-0000-4000-8000-000000000000", DeviceKind.CARD)
    assert (one.utilisation, one.temperature_c, one.power_mw) == (0.93, 61, 412_500)
    assert one.memory_used_bytes == 60_000 << 20
    assert one.memory_total_bytes == 81_000 << 20
    assert (one.is_ecc_on, one.throttles, one.processes) == (None, None, None)
    assert (first.pod, first.last_xid) == (("team-b", "train-7"), 0)
    assert (second.pod, second.last_xid) == (("", ""), 79)
    assert (found.driver_version, found.hosts) == ("550.54.15", frozenset({"n1"}))


def test_slices_are_parts_of_their_card_and_do_not_claim_its_utilisation() -> None:
    found = read_metrics(metrics_text(cards=1, slices={0: 2}))
    assert [one.reading.kind for one in found.devices] == [DeviceKind.SLICE] * 2
    assert {one.reading.parent for one in found.devices} == {
        "GPU-00000000-0000-4000-8000-000000000000"
    }
    assert [one.reading.profile for one in found.devices] == ["1g.10gb"] * 2
    assert [one.reading.utilisation for one in found.devices] == [None, None]
    assert len({one.reading.id for one in found.devices}) == 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('DCGM_FI_DEV_GPU_UTIL{gpu="0"', "line 1 is no sample"),
        ('DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="G"} lots', "line 1 has no number"),
    ],
)
def test_what_is_no_metric_is_said_by_its_line(line: str, problem: str) -> None:
    with pytest.raises(MetricsUnreadable, match=problem):
        read_metrics(line)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-5", "1e300"])
def test_impossible_figures_are_unknown_or_bounded(value: str) -> None:
    text = "\n".join(
        f'{name}{{UUID="G",gpu="0"}} {value}'
        for name in ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE")
    )
    for one in read_metrics(text).devices:
        assert one.reading.utilisation in (None, 0.0, 1.0)
        assert (one.reading.temperature_c, one.reading.power_mw) == (None, None)


def test_quotes_and_backslashes_in_labels_are_read() -> None:
    text = (
        'DCGM_FI_DEV_GPU_TEMP{UUID="G",gpu="0",modelName="a \\"b\\" \\\\ c, d=\\"e\\""} 40 1700000'
    )
    assert read_metrics(text).devices[0].reading.name == 'a "b" \\ c, d="e"'


def test_more_gpus_than_a_node_can_have_are_refused() -> None:
    text = "\n".join(f'DCGM_FI_DEV_GPU_TEMP{{UUID="G{at}"}} 40' for at in range(1100))
    with pytest.raises(MetricsUnreadable, match="more than 1024"):
        read_metrics(text)


def test_only_a_change_of_the_last_error_is_news() -> None:
    memory = XidMemory()

    def look(code: int) -> tuple[int, ...]:
        (one,) = memory.news(read_metrics(metrics_text(cards=1, xids={0: code})).devices)
        return one.reading.xids

    card = read_metrics(metrics_text(cards=1)).devices[0].reading.id
    memory.recall(card, 79)  # written down before this process began
    assert [look(code) for code in (79, 79, 31, 31, 0, 31)] == [(), (), (31,), (), (), (31,)]


@pytest.mark.django_db
def test_a_measured_card_names_our_workload_or_the_pod_of_others() -> None:
    labels = {"orchestration.ai/workload": "goal-tune-1"}
    named = {
        (one.namespace, one.name): one
        for one in pods(pod("ours", labels=labels, gpus=1, node="n1"))
    }
    held = {0: ("team-b", "ours"), 1: ("team-b", "train-7")}
    metrics = read_metrics(metrics_text(pods=held, xids={0: 79}))
    told = Metrics(tuple(XidMemory().news(metrics.devices)), metrics.driver_version)
    record_sample(measured("n1", told, named, at=AT))
    rows = GpuDevice.objects.order_by("position")
    assert [row.held_by for row in rows] == ["goal-tune-1", "team-b/train-7"]
    node = GpuNode.objects.get()
    assert (node.source, node.is_measured, node.driver_version) == (Source.DCGM, True, "550.54.15")
    assert JournalRecord.objects.filter(action="gpu.xid").count() == 1


class _Exporter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, content = self.server.answers  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        try:
            self.wfile.write(content)
        except OSError:
            return  # the reader has had enough

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def exporter() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Exporter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def _pod(port: int, *, node: str = "n1", ip: str = "127.0.0.1") -> PodFact:
    found = pod(f"dcgm-{node}", node=node, labels={"app": "nvidia-dcgm-exporter"}, podIP=ip)
    found["spec"]["containers"][0]["ports"] = [
        {"name": "health", "containerPort": 1}, {"name": "metrics", "containerPort": port},
    ]  # fmt: skip
    return read_pod(found)


def test_an_exporter_is_found_by_its_label_and_its_port_by_name() -> None:
    assert _pod(9400).exporter == "127.0.0.1:9400"
    assert read_pod(pod("dcgm", labels={"app": "dcgm"})).exporter == ""
    bare = pod("dcgm", labels={"app.kubernetes.io/name": "dcgm-exporter"}, podIP="10.0.0.1")
    assert read_pod(bare).exporter == "10.0.0.1:9400"


def test_exporters_are_read_at_once_and_one_that_fails_does_not_stop_the_others(
    exporter: Any,
) -> None:
    exporter.answers = (200, metrics_text(cards=3).encode())
    port = exporter.server_address[1]
    found = scrape([_pod(port), _pod(1, node="n2"), _pod(port, node="n3", ip="")], fetch_directly)
    assert isinstance(found["n1"], Metrics)
    assert len(found["n1"].devices) == 3
    assert "does not answer" in str(found["n2"])
    assert "no address" in str(found["n3"])


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((503, b"busy"), "HTTP 503"),
        ((200, b"#" * (BYTES_MAX + 10)), "more than 4 MiB"),
        ((200, b"DCGM_FI_DEV_GPU_UTIL{"), "cannot be read"),
    ],
)
def test_an_answer_that_is_none_is_said(
    exporter: Any, answer: tuple[int, bytes], problem: str
) -> None:
    exporter.answers = answer
    found = scrape([_pod(exporter.server_address[1])], fetch_directly)["n1"]
    assert isinstance(found, ScrapeFailed)
    assert problem in str(found)
