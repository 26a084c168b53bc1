"""The audit pages: bounded search, a chain verified in steps, packs, and what is refused."""

import datetime as dt
import io
import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from governance.models import Checkpoint, JournalCheck, JournalRecord
from governance.services import journal_search
from governance.services.checkpoints import journal_tree, make_checkpoint
from governance.services.journal import News, append_records, journaled
from governance.services.journal_search import SearchInvalid, suggestions, understand
from governance.services.verification_steps import (
    Frontier,
    current_check,
    verify_further,
    verify_on_schedule,
)
from lineage.domain import Actor, ActorKind
from lineage.merkle import MerkleTree
from tests.goals.provenance import as_, provenance

pytestmark = pytest.mark.django_db
ADA = Actor(ActorKind.HUMAN, "ada")


def write(count: int, *, action: str = "thing.done", namespace: str = "default") -> None:
    with journaled():
        append_records(
            [
                News(action, ADA, "thing", f"thing-{n}", namespace, body={"n": n})
                for n in range(count)
            ]
        )


def seqs(browser: Any, q: str, **more: str) -> list[int]:
    page = browser.get("/audit", {"q": q, **more})
    assert page.status_code == 200, page.content.decode()
    return [int(text) for text in re.findall(r'id="record-(\d+)"', page.content.decode())]


def test_qualifiers_narrow_and_words_are_found_anywhere(tower: Any, people: Any) -> None:
    made = provenance(tower)
    browser = as_(people, "auditor")
    created = JournalRecord.objects.get(action="goal.created")
    assert seqs(browser, "action:goal.created") == [created.seq]
    assert created.seq in seqs(browser, "action:goal.*")
    assert seqs(browser, f"goal:{made.goal.uid} action:goal.created") == [created.seq]
    assert seqs(browser, "goal:default/reduce-p99-latency action:goal.created") == [created.seq]
    assert seqs(browser, "goal:other/reduce-p99-latency") == []
    assert seqs(browser, f"seq:{created.seq}") == [created.seq]
    assert created.seq in seqs(browser, f"seq:0..{created.seq} actor:operator")
    assert seqs(browser, f"hash:{created.hash[:16]}") == [created.seq]
    assert created.seq in seqs(browser, "actor:human created:1h namespace:default")
    assert created.seq not in seqs(browser, "actor:human -action:goal.created")
    assert seqs(browser, "created:..2020-01-01") == []
    (released,) = seqs(browser, f"action:release.activated object:release/{made.release.uid}")
    assert seqs(browser, 'action:release.activated "It is faster."') == [released]
    assert seqs(browser, "action:release.activated", time="15m") == [released]


@pytest.mark.parametrize(
    ("text", "start", "words"),
    [
        ("actor:ada acton:goal.created", 10, "no qualifier"),
        ("created:yesterday", 0, "from..to"),
        ("seq:1..x", 0, "record number"),
        ("hash:XYZ", 0, "0-9 and a-f"),
        ('ada "open', 4, "not closed"),
        ("actor:", 0, "who did it"),
        ("-created:1h", 0, "cannot be negated"),
        ("x " * 20, 32, "at most 16 terms"),
        ("y" * 500, 400, "at most 400"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(text: str, start: int, words: str) -> None:
    with pytest.raises(SearchInvalid, match=words) as caught:
        understand(text)
    assert caught.value.start == start


def test_a_mistake_is_shown_where_it_is_with_what_was_meant(tower: Any, people: Any) -> None:
    provenance(tower)
    browser = as_(people, "auditor")
    answer = browser.get("/audit", {"q": "actor:ada action:goal.craeted"})
    page = answer.content.decode()
    assert answer.status_code == 422
    assert "<mark>action:goal.craeted</mark>" in page
    assert "action:goal.created</code>" in page
    assert 'aria-invalid="true"' in page
    answer = browser.get("/audit", {"q": "acton:goal.created"})
    assert "<code>action:goal.created</code>" in answer.content.decode()


def test_old_links_still_search(people: Any, twins: Any) -> None:
    write(3)
    browser = as_(people, "viewer")
    page = browser.get("/journal", {"action": "thing.done", "seq": "1"}).content.decode()
    assert re.findall(r'id="record-(\d+)"', page) == ["1"]
    assert browser.get("/journal", {"hash": "XYZ"}).status_code == 422


def test_pages_follow_the_cursor_without_gap_or_repeat(people: Any, twins: Any) -> None:
    write(120)
    browser = as_(people, "viewer")
    first = seqs(browser, "")
    assert first == list(range(119, 69, -1))
    page = browser.get("/audit").content.decode()
    (older,) = re.findall(r'rel="next"\s+href="\?([^"]+)"', page)
    second = seqs(browser, "", cursor=older.removeprefix("cursor="))
    assert second == list(range(69, 19, -1))


def test_a_search_no_index_helps_looks_at_so_many_records_and_goes_on(
    people: Any, twins: Any, settings: Any
) -> None:
    write(1, action="rare.word")
    write(200)
    settings.JOURNAL_SEARCH_RECORDS = 60
    browser = as_(people, "viewer")
    page = browser.get("/audit", {"q": '"rare.word"'}).content.decode()
    assert "looked at records 141 to 200" in page
    found: list[int] = []
    for _ in range(4):
        (query,) = re.findall(r'rel="next"\s+href="\?([^"]+)"', page)
        page = browser.get(f"/audit?{query.replace('&amp;', '&')}").content.decode()
        found += [int(text) for text in re.findall(r'id="record-(\d+)"', page)]
        if found:
            break
    assert found == [0]
    assert seqs(as_(people, "admin"), "action:rare.word") == [0]  # an index finds that at once


def test_times_are_found_by_halving(people: Any, twins: Any) -> None:
    write(60)
    now = timezone.now()
    for seq in range(60):
        at = now - dt.timedelta(days=60 - seq)
        JournalRecord.objects.filter(seq=seq).update(at=at)
    assert journal_search.first_since(now - dt.timedelta(days=30, hours=1)) == 30
    assert journal_search.first_since(now) == 60
    assert journal_search.first_since(now - dt.timedelta(days=900)) == 0


def test_another_namespace_is_neither_found_nor_suggested(people: Any, twins: Any) -> None:
    write(2)
    write(2, namespace="secret")
    browser = as_(people, "viewer")
    assert seqs(browser, "") == [1, 0]
    assert seqs(browser, "namespace:secret") == []
    assert seqs(browser, "seq:3") == []
    names = browser.get("/audit/names", {"q": "namespace:"}).content.decode()
    assert ("default" in names, "secret" in names) == (True, False)


def test_a_search_is_completed(people: Any, twins: Any) -> None:
    write(2)
    visible = JournalRecord.objects.all()
    assert suggestions(visible, "ac") == ["actor:", "action:"]
    assert suggestions(visible, "actor:ada action:th") == ["actor:ada action:thing.done"]
    assert suggestions(visible, "actor:a") == ["actor:human", "actor:agent", "actor:ada"]
    assert suggestions(visible, "nonsense:") == []


def test_the_frontier_agrees_with_the_tree() -> None:
    frontier, tree = Frontier(), MerkleTree()
    for number in range(70):
        leaf = bytes([number]) * 32
        frontier.append(leaf)
        tree.append(leaf)
        assert frontier.root() == tree.root()


class Clock:
    """Time that passes a second for each look at it."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_a_long_journal_is_verified_in_steps(people: Any, twins: Any) -> None:
    write(25)
    make_checkpoint()
    write(20)
    make_checkpoint()
    first = verify_further(seconds=2.5, clock=Clock(), at_once=10)
    assert (first.size, first.flaw_seq, first.whole_at) == (20, None, None)
    second = verify_further(seconds=60, clock=Clock(), at_once=10)
    assert (second.size, second.checkpoints, second.flaw_seq) == (45, 2, None)
    assert second.whole_at is not None
    write(5)
    third = verify_further()
    assert (third.size, third.checkpoints) == (50, 2)
    assert Frontier(third.size, [bytes.fromhex(h) for h in third.frontier]).root() == (
        journal_tree(is_fresh=True).root()
    )


@pytest.mark.parametrize("part", ["content", "link", "missing", "head", "checkpoint", "cut"])
def test_each_damage_is_named_at_its_record(people: Any, twins: Any, part: str) -> None:
    write(30)
    make_checkpoint()
    records = JournalRecord.objects
    expected = 12
    match part:
        case "content":
            records.filter(seq=12).update(namespace="elsewhere")
        case "link":
            expected = 13
            other = records.get(seq=11)
            records.filter(seq=12).update(hash=other.hash)
            expected = 12
        case "missing":
            records.filter(seq=12).delete()
        case "head":
            from governance.models import JournalHead

            expected = 29
            JournalHead.objects.update(last_hash="0" * 64)
        case "checkpoint":
            expected = 29
            Checkpoint.objects.update(root_hash="0" * 64)
        case "cut":
            from governance.models import JournalHead

            expected = 19
            records.filter(seq__gte=20).delete()
            last = records.get(seq=19)
            JournalHead.objects.update(size=20, last_hash=last.hash)
    check = verify_further()
    assert check.flaw_seq == expected, check.flaw_why
    assert verify_further().flaw_seq == expected  # it stays until somebody begins afresh


def test_a_journal_shorter_than_what_was_verified_is_broken(people: Any, twins: Any) -> None:
    from governance.models import JournalHead

    write(10)
    assert verify_further().size == 10
    JournalRecord.objects.filter(seq__gte=5).delete()
    JournalHead.objects.update(size=5, last_hash=JournalRecord.objects.get(seq=4).hash)
    assert "10 records were verified, 5 are left" in verify_further().flaw_why
    assert verify_further(is_fresh=True).flaw_seq is None


def test_the_schedule_goes_on_and_begins_afresh_after_a_day(
    people: Any, twins: Any, caplog: Any
) -> None:
    write(10)
    first = verify_on_schedule()
    assert (first.size, first.flaw_seq) == (10, None)
    JournalRecord.objects.filter(seq=3).update(namespace="elsewhere")  # behind what was verified
    write(5)
    soon = verify_on_schedule()
    assert (soon.size, soon.flaw_seq, soon.started_at) == (15, None, first.started_at)
    tomorrow = first.started_at + dt.timedelta(days=1, minutes=1)
    broken = verify_on_schedule(now=tomorrow)
    assert (broken.flaw_seq, broken.size) == (3, 3)
    assert "does not hold at record 3" in caplog.text
    caplog.clear()
    later = verify_on_schedule(now=tomorrow + dt.timedelta(days=2))
    assert later.flaw_seq == 3  # it stays until a person begins afresh
    assert caplog.text == ""


def test_a_pass_that_is_not_finished_is_finished_first(people: Any, twins: Any) -> None:
    write(30)
    begun = verify_further(seconds=1.5, clock=Clock(), at_once=10)
    assert begun.size == 10
    check = verify_on_schedule(now=begun.started_at + dt.timedelta(days=3))
    assert (check.size, check.started_at) == (30, begun.started_at)


def test_the_page_tells_of_the_schedule(people: Any, twins: Any) -> None:
    write(5)
    page = page_of(people)
    assert "the schedule begins within a minute" in page
    verify_on_schedule()
    page = page_of(people)
    assert "from record 0 every day" in page
    assert "has not run since" not in page
    JournalCheck.objects.update(checked_at=timezone.now() - dt.timedelta(hours=1))
    assert "the scheduled verification has not run since" in page_of(people)
    JournalRecord.objects.filter(seq=2).delete()
    verify_further(is_fresh=True)
    page = page_of(people)
    assert "It is missing" in page
    assert "until somebody verifies from the start" in page


def page_of(people: Any) -> str:
    return re.sub(r"\s+", " ", as_(people, "auditor").get("/audit").content.decode())


def test_the_page_verifies_for_auditors_alone(people: Any, twins: Any) -> None:
    write(10)
    viewer, auditor = as_(people, "viewer"), as_(people, "auditor")
    assert viewer.post("/audit/check").status_code == 403
    assert not JournalCheck.objects.exists()
    assert "Needs the role auditor" in viewer.get("/audit").content.decode()
    assert auditor.post("/audit/check")["Location"] == "/audit#chain"
    page = auditor.get("/audit").content.decode()
    assert "every record, link and signed root holds" in page
    assert current_check().size == 10
    JournalRecord.objects.filter(seq=3).update(actor_id="mallory")
    auditor.post("/audit/check", {"from": "start"})
    page = auditor.get("/audit").content.decode()
    assert "broken" in page
    assert "/journal/3" in page


# --- packs --------------------------------------------------------------------------------------


def test_a_pack_is_taken_remembered_and_verified(tower: Any, people: Any) -> None:
    made = provenance(tower)
    browser = as_(people, "viewer")
    assert "No pack was taken yet" in browser.get("/audit/packs").content.decode()
    answer = browser.post(f"/audit/packs/{made.goal.uid}")
    assert answer["Content-Type"] == "application/zip"
    page = browser.get("/audit/packs", {"q": "reduce"}).content.decode()
    record = JournalRecord.objects.get(action="evidence.exported")
    assert (record.actor_id, f"/journal/{record.seq}" in page) == ("viewer", True)
    upload = SimpleUploadedFile("pack.zip", answer.content, "application/zip")
    page = browser.post("/audit/verify", {"pack": upload}).content.decode()
    assert "Verified</h2>" in page or "Verified: pack.zip" in page
    assert "the keys of this tower" in page
    assert page.count("fails</span>") == 0
    assert "agrees in every step" in page


def test_a_changed_pack_is_red_at_the_first_bad_record(tower: Any, people: Any) -> None:
    import zipfile

    from goals.services.evidence import evidence_pack

    made = provenance(tower)
    pack = evidence_pack(made.goal)
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        line = archive.read("records.jsonl").splitlines()[4]
    place = pack.index(line) + line.index(b'"action":"') + 12
    changed = bytearray(pack)
    changed[place] ^= 1
    browser = as_(people, "auditor")
    upload = SimpleUploadedFile("pack.zip", bytes(changed), "application/zip")
    page = browser.post("/audit/verify", {"pack": upload}).content.decode()
    seq = re.search(rb'"seq":(\d+)', line)
    assert seq is not None
    assert "Not verified" in page
    assert f"sequence number <strong>{seq[1].decode()}</strong>" in page
    assert "fails</span>" in page


def test_the_verify_page_takes_files_alone(people: Any, twins: Any) -> None:
    browser = as_(people, "viewer")
    assert browser.get("/audit/verify").status_code == 200
    assert browser.post("/audit/verify", {"pack": "text"}).status_code == 422
    upload = SimpleUploadedFile("<b>.zip", b"no zip", "application/zip")
    page = browser.post("/audit/verify", {"pack": upload}).content.decode()
    assert "Not verified: &lt;b&gt;.zip" in page
    assert "BadZipFile" in page
