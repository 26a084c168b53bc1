"""Evidence packs of a time: what they hold, who may take them, and what is remembered."""

import datetime as dt
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from goals.services.range_evidence import range_pack
from governance.models import JournalRecord
from lineage.evidence.base import EVERY_NAMESPACE, EvidenceError
from lineage.evidence.inspect import inspect_pack
from tests.goals.provenance import as_, provenance

pytestmark = pytest.mark.django_db
HOUR = dt.timedelta(hours=1)


@pytest.fixture
def made(tower: Any) -> Any:
    """A Goal in `default` with a release, and an agent of another namespace."""
    return provenance(tower)


def files_of(pack: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def verified(pack: bytes, folder: Path) -> dict[str, Any]:
    """Both verifiers hold it good; the pack's own, run as an outsider would, says so as JSON."""
    path = folder / "pack.zip"
    path.write_bytes(pack)
    report = inspect_pack(path)
    assert report.ok, [step for step in report.steps if not step.ok]
    (folder / "verify.py").write_bytes(files_of(pack)["verify.py"])
    done = subprocess.run(
        [sys.executable, "-I", "verify.py", "--json", "pack.zip"],
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_whole_journal_of_a_time(made: Any, tmp_path: Path) -> None:
    count = JournalRecord.objects.count()
    pack = range_pack(namespace=EVERY_NAMESPACE, since=timezone.now() - HOUR)
    found = verified(pack, tmp_path)
    assert not any("adjacent" in gap for gap in found["gaps"])
    files = files_of(pack)
    assert len(files["records.jsonl"].splitlines()) == count
    goals = json.loads(files["goals.json"])["goals"]
    assert [one["name"] for one in goals] == ["reduce-p99-latency"]
    assert json.loads(files["decisions.json"])["decisions"]
    (release,) = json.loads(files["releases.json"])["releases"]
    assert release["digest"] == made.release.digest
    assert any(name.startswith("policies/") for name in files)
    assert not any(name.startswith("payloads/") for name in files)


def test_one_namespace_of_a_time(made: Any, tower: Any, tmp_path: Path) -> None:
    split = timezone.now()
    other = tower.apply("later", agents="profiler").goal
    pack = range_pack(namespace="default", since=split)
    verified(pack, tmp_path)
    records = [json.loads(line) for line in files_of(pack)["records.jsonl"].splitlines()]
    assert {one["namespace"] for one in records} == {"default"}
    assert {one["goal"] for one in records} == {str(other.uid)}
    earlier = range_pack(namespace="default", since=split - HOUR, until=split)
    uids = {json.loads(line)["goal"] for line in files_of(earlier)["records.jsonl"].splitlines()}
    assert str(made.goal.uid) in uids
    assert str(other.uid) not in uids


def test_what_cannot_be_packed_says_why(made: Any) -> None:
    now = timezone.now()
    with pytest.raises(EvidenceError, match=r"time: namespace nowhere has no record"):
        range_pack(namespace="nowhere", since=now - HOUR)
    with pytest.raises(EvidenceError, match="time: it must begin before now"):
        range_pack(namespace="default", since=now + HOUR)
    with pytest.raises(EvidenceError, match="a pack holds 3: choose a shorter time"):
        range_pack(namespace=EVERY_NAMESPACE, since=now - HOUR, records_max=3)


def post(client: Client, **form: str) -> Any:
    return client.post("/audit/packs/range", form)


def test_the_page_gives_the_pack_and_remembers_it(made: Any, people: Any, tmp_path: Path) -> None:
    auditor = as_(people, "auditor")
    page = auditor.get("/audit/packs").content.decode()
    assert "namespace default" in page
    assert 'value="*"' not in page  # an auditor of one namespace
    answer = post(auditor, namespace="default", time="1h")
    assert answer.status_code == 200
    assert re.search(r'filename="default-\d{8}T\d{6}Z-evidence.zip"', answer["Content-Disposition"])
    verified(answer.content, tmp_path)
    record = JournalRecord.objects.get(action="evidence.exported")
    assert (record.object_kind, record.namespace) == ("journal", "default")
    page = re.sub(r"\s+", " ", auditor.get("/audit/packs").content.decode())
    assert "default, since 20" in page
    admin = as_(people, "admin")
    assert 'value="*"' in admin.get("/audit/packs").content.decode()
    whole = post(admin, namespace="*", **{"from": "2026-01-01T00:00"})
    assert "journal-20260101T000000Z-evidence.zip" in whole["Content-Disposition"]
    assert "every namespace, since" not in auditor.get("/audit/packs").content.decode()
    assert "every namespace, since" in admin.get("/audit/packs").content.decode()


def test_bad_input_is_named_with_its_field(made: Any, people: Any) -> None:
    auditor = as_(people, "auditor")
    for form, words in (
        ({"namespace": "default", "from": "2026-02-01T00:00", "until": "2026-01-01T00:00"},
         "time: the range ends before it begins."),
        ({"namespace": "default", "until": "2026-01-01T00:00"}, "time: say when it begins."),
        ({"namespace": "default", "time": "yesterday"}, "time: one of 15m, 1h, 24h, 7d"),
        ({"namespace": "", "time": "1h"}, "namespace: choose one"),
        ({"namespace": "default", "from": "2001-01-01T00:00", "until": "2001-01-02T00:00"},
         "time: namespace default has no record of it."),
    ):  # fmt: skip
        answer = post(auditor, **form)
        assert answer.status_code == 422, form
        page = answer.content.decode()
        assert words in page
        assert 'aria-invalid="true"' in page


def test_nobody_takes_what_they_may_not_see(made: Any, people: Any) -> None:
    auditor = as_(people, "auditor")
    for namespace in ("*", "other"):
        answer = post(auditor, namespace=namespace, time="1h")
        assert answer.status_code == 403, namespace
        assert "ask" in answer.content.decode()
    assert not JournalRecord.objects.filter(action="evidence.exported").exists()


def test_the_api_gives_packs_and_lists_them(made: Any, people: Any, tmp_path: Path) -> None:
    auditor = as_(people, "auditor")
    body = {"since": (timezone.now() - HOUR).isoformat(), "namespace": "default"}
    answer = auditor.post("/api/v1/packs", body, content_type="application/json")
    assert answer.status_code == 200, answer.content
    verified(answer.content, tmp_path)
    goal = auditor.get(f"/api/v1/goals/{made.goal.uid}/evidence")
    assert goal.status_code == 200
    listed = auditor.get("/api/v1/packs").json()["results"]
    assert [one["object_kind"] for one in listed] == ["goal", "journal"]
    assert all(re.fullmatch(r"[0-9a-f]{64}", one["sha256"]) for one in listed)
    refused = auditor.post(
        "/api/v1/packs", {**body, "namespace": "*"}, content_type="application/json"
    )
    assert refused.status_code == 403
    naive = auditor.post(
        "/api/v1/packs", {"since": "2026-01-01T00:00:00"}, content_type="application/json"
    )
    assert naive.status_code == 422
    assert "since" in naive.content.decode()
