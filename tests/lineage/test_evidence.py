"""Evidence packs: made whole, verified by two verifiers, refused when anything is changed."""

import ast
import base64
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec

from lineage.evidence.base import (
    EvidenceError,
    OlderCheckpoint,
    PackContents,
    PackedRecord,
    SignedFile,
)
from lineage.evidence.inspect import PackReport, inspect_pack
from lineage.evidence.pack import build_pack, write_pack
from lineage.evidence.verify import Bundle, Failed, TrustedRoot, verify
from lineage.merkle import MerkleTree, leaf_hash, verify_inclusion
from lineage.signing.base import Signer
from lineage.signing.keys import DEFAULT_ISSUER
from lineage.signing.memory import MemorySigner

VERIFIER = Path(__file__).parents[2] / "lineage/evidence/verify.py"
GOAL = "0b0e7a52-7c9c-4d0e-8f0a-5a3c1f1d2e3f"
TOWER = "spiffe://clearance.local/tower"
AGENT = "spiffe://clearance.local/ns/default/sa/optimizer/goal/1/agent/optimizer"
ORIGIN = "clearance.local/journal"
# How many bytes are flipped; a long run is N=20000.
FLIPS = int(os.environ.get("N", "300"))


def journal(
    count: int,
    *,
    foreign: frozenset[int] = frozenset(),
    odd: dict[int, dict[str, Any]] | None = None,
) -> list[bytes]:
    """Chained records of this Goal, with another's at the places in `foreign`.

    `odd` changes members of single records before they enter the chain.
    """
    lines, prev = [], "0" * 64
    for seq in range(count):
        record = {
            "seq": seq,
            "at": f"2026-01-01T00:00:00.{seq:06d}Z",
            "actor": {"kind": "human", "id": "ada"},
            "action": "goal.created" if seq == 0 else "task.started",
            "object": {"kind": "goal", "id": GOAL},
            "namespace": "elsewhere" if seq in foreign else "default",
            "goal": "another" if seq in foreign else GOAL,
            "body": {"text": 'größer \U0001f6eb \u2028 "q"\n', "n": seq, "part": 0.5},
            "prev": prev,
            **(odd or {}).get(seq, {}),
        }
        lines.append(rfc8785.dumps(record))
        prev = hashlib.sha256(lines[-1]).hexdigest()
    return lines


def checkpoint(signer: Signer, tree: MerkleTree, size: int) -> str:
    root = base64.b64encode(tree.root(size)).decode()
    return signer.sign_note(f"{ORIGIN}\n{size}\n{root}\n")


def named(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


POLICY = rfc8785.dumps({"modules": [{"path": "a.rego", "source": "package a"}], "data": {}})
WEIGHTS = b"weights"
MODEL = rfc8785.dumps({"layers": [{"digest": named(WEIGHTS), "size": len(WEIGHTS)}]})


def entry(kind: str, debit: str, credit: str, amount: int, key: str) -> dict[str, Any]:
    names = {"kind": kind, "debit": debit, "credit": credit}
    return {"unit": "gpu_ms", "amount": amount, "key": key, **names}


def documents() -> dict[str, Any]:
    request = rfc8785.dumps({"kind": "grant", "amount": 10}).decode()
    return {
        "goal.json": {"uid": GOAL, "name": "reduce-p99-latency"},
        "ledger.json": {
            "accounts": [{"unit": "gpu_ms", "limit": 100, "reserved": 10, "settled": 30}],
            "entries": [
                entry("grant", "outside", "available", 100, "g1"),
                entry("reserve", "available", "reserved", 60, "r1"),
                entry("settle", "reserved", "settled", 30, "s1"),
                entry("release", "reserved", "available", 20, "x1"),
            ],
        },
        "decisions.json": {
            "decisions": [
                {
                    "uid": "d1",
                    "bundle_digest": named(POLICY),
                    "input_digest": named(b"{}"),
                    "input_canonical": "{}",
                }
            ]
        },
        "approvals.json": {
            "approvals": [
                {
                    "uid": "a1",
                    "request_digest": named(request.encode()),
                    "request_canonical": request,
                }
            ]
        },
        "releases.json": {
            "releases": [{"digest": named(MODEL), "service": "checkout", "environment": "prod"}]
        },
    }


def make_contents(
    signer: Signer,
    *,
    count: int = 12,
    foreign: frozenset[int] = frozenset({3, 7}),
    change: Callable[[dict[str, Any]], None] = lambda found: None,
    odd: dict[int, dict[str, Any]] | None = None,
) -> PackContents:
    lines = journal(count, foreign=foreign, odd=odd)
    tree = MerkleTree(map(leaf_hash, lines))
    mine = [index for index in range(count) if index not in foreign]
    held = documents()
    change(held)
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "ab.json", "digest": {"sha256": "cd" * 32}}],
        "predicateType": "https://clearance.local/ab/v1",
        "predicate": {"p99_ms": 87.5},
    }
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    return PackContents(
        goal_uid=GOAL,
        namespace="default",
        goal_name="reduce-p99-latency",
        exported_at="2026-01-02T00:00:00Z",
        issuer=DEFAULT_ISSUER,
        records=[PackedRecord(index, lines[index]) for index in mine],
        siblings=tree.siblings(mine),
        checkpoint=checkpoint(signer, tree, count),
        older=[
            OlderCheckpoint(checkpoint(signer, tree, size), tuple(tree.consistency_proof(size)))
            for size in (1, 6, 8)
        ],
        documents={name: json.dumps(content).encode() for name, content in held.items()},
        policies={named(POLICY): POLICY},
        manifests={named(MODEL): MODEL},
        bundles=[
            SignedFile("weights", signer.sign_digest(digest, identity=AGENT), AGENT, sha256=digest),
            SignedFile("ab", signer.sign_statement(statement, identity=AGENT), AGENT),
            SignedFile("note", signer.sign_blob(b"n", identity=AGENT), AGENT, payload=b"n"),
        ],
        svid_bundle=b'{"keys":[]}',
        gaps=["Span bodies older than 30 days were not kept."],
    )


@pytest.fixture(scope="module")
def signer() -> MemorySigner:
    return MemorySigner()


@pytest.fixture(scope="module")
def pack(signer: MemorySigner) -> bytes:
    return build_pack(make_contents(signer), signer=signer, identity=TOWER)


def outcome(content: bytes, path: Path) -> tuple[dict[str, bool], dict[str, bool], PackReport]:
    """Both verifiers' steps for the same bytes."""
    path.write_bytes(content)
    ours = verify(str(path))
    assert not [step for step in ours.steps if "Traceback" in step["detail"]]
    report = inspect_pack(path)
    steps = {step["name"]: step["ok"] for step in ours.steps}
    return steps, {step.name: step.ok for step in report.steps}, report


def both_refuse(content: bytes, path: Path) -> PackReport:
    first, second, report = outcome(content, path)
    assert not all(first.values()), "verify.py accepted it"
    assert not report.ok, "inspect_pack accepted it"
    assert not all(second.values())
    return report


def repacked(pack: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The pack with files changed, in a ZIP that is canonical again."""
    from lineage.evidence.archive import write_archive

    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    target = io.BytesIO()
    write_archive(files, target)
    return target.getvalue()


def test_untouched_pack_passes_in_both(pack: bytes, signer: MemorySigner, tmp_path: Path) -> None:
    first, second, report = outcome(pack, tmp_path / "pack.zip")
    assert all(first.values()), first
    assert report.ok, report.steps
    assert list(first) == list(second)
    assert report.first_bad is None
    assert any("30 days" in gap for gap in report.gaps)
    assert any("graph.json" in gap for gap in report.gaps)
    assert any("3 of 9" in gap or "2 of 9" in gap for gap in report.gaps)
    assert inspect_pack(tmp_path / "pack.zip", signer=signer).ok


def test_another_towers_pack_is_not_ours(pack: bytes, tmp_path: Path) -> None:
    (tmp_path / "pack.zip").write_bytes(pack)
    report = inspect_pack(tmp_path / "pack.zip", signer=MemorySigner())
    assert [step.name for step in report.steps if not step.ok] == ["trust"]


def test_unpacked_by_another_tool(pack: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    assert verify(str(tmp_path / "out")).ok
    assert inspect_pack(tmp_path / "out").ok
    (tmp_path / "out" / "extra").write_text("x")
    assert not verify(str(tmp_path / "out")).ok
    assert not inspect_pack(tmp_path / "out").ok


def test_same_contents_same_encoding(signer: MemorySigner) -> None:
    target = io.BytesIO()
    size = write_pack(make_contents(signer), target, signer=signer, identity=TOWER)
    assert size == len(target.getvalue())
    assert repacked(target.getvalue(), lambda files: None) == target.getvalue()


def region_offsets(pack: bytes) -> list[int]:
    """Places in every kind of region: each header, each file, the directory, the end."""
    found = [0, len(pack) - 1, len(pack) - 22]
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        found += range(archive.start_dir, archive.start_dir + 60)
        for info in archive.infolist():
            data = info.header_offset + 30 + len(info.filename)
            found += [info.header_offset + step for step in (4, 7, 10, 12, 14, 20, 26, 28, 31)]
            found += [data, data + info.file_size // 2, data + max(0, info.file_size - 1)]
    return found


def test_any_changed_byte_fails_in_both(pack: bytes, tmp_path: Path) -> None:
    """I6. Every region and FLIPS random places, one bit of one byte each."""
    chance = random.Random(20260101)
    places = region_offsets(pack) + [chance.randrange(len(pack)) for _ in range(FLIPS)]
    for place in places:
        changed = bytearray(pack)
        changed[place] ^= 1 << chance.randrange(8)
        both_refuse(bytes(changed), tmp_path / "changed.zip")


def test_cut_and_padded_packs_fail(pack: bytes, tmp_path: Path) -> None:
    for content in (b"", pack[:-1], pack[: len(pack) // 2], pack + b"\0", b"\0" + pack, pack * 2):
        both_refuse(content, tmp_path / "p.zip")


def test_any_changed_file_fails_when_repacked(pack: bytes, tmp_path: Path) -> None:
    """Correct headers and checksums around a changed file do not help."""
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        names = archive.namelist()
    for name in names:

        def flip(files: dict[str, bytes], name: str = name) -> None:
            content = bytearray(files[name])
            content[len(content) // 2] ^= 1
            files[name] = bytes(content)

        both_refuse(repacked(pack, flip), tmp_path / "p.zip")
        both_refuse(repacked(pack, lambda files, name=name: files.pop(name)), tmp_path / "p.zip")
    both_refuse(repacked(pack, lambda files: files.update(extra=b"x")), tmp_path / "p.zip")


def test_first_bad_record_is_named(pack: bytes, tmp_path: Path) -> None:
    def forge(files: dict[str, bytes]) -> None:
        lines = files["records.jsonl"].split(b"\n")
        lines[4] = lines[4].replace(b'"id":"ada"', b'"id":"eve"')
        lines[6] = lines[6].replace(b'"id":"ada"', b'"id":"eve"')
        files["records.jsonl"] = b"\n".join(lines)

    path = tmp_path / "p.zip"
    report = both_refuse(repacked(pack, forge), path)
    assert report.first_bad is not None
    assert (report.first_bad.seq, report.first_bad.action) == (5, "task.started")
    assert verify(str(path)).first_bad == {"position": 4, "seq": "5", "action": "task.started"}


def resealed(
    contents: PackContents, signer: Signer, change: Callable[[dict[str, bytes]], None]
) -> bytes:
    """A pack its own maker changed and sealed again: only the meaning is wrong."""
    from lineage.evidence import pack as module

    pack = build_pack(contents, signer=signer, identity=TOWER)

    def reseal(files: dict[str, bytes]) -> None:
        change(files)
        manifest = json.loads(files["manifest.json"])
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            for name, content in files.items()
            if name not in ("manifest.json", "manifest.sigstore.json", "seal.txt")
        }
        files["manifest.json"] = module.canonical(manifest)
        signature = signer.sign_blob(files["manifest.json"], identity=TOWER).encode()
        files["manifest.sigstore.json"] = signature
        digests = [
            hashlib.sha256(files[n]).hexdigest()
            for n in ("manifest.json", "manifest.sigstore.json")
        ]
        files["seal.txt"] = signer.sign_note(
            f"clearance.local/evidence-pack\n{GOAL}\nmanifest sha256:{digests[0]}\n"
            f"signature sha256:{digests[1]}\n"
        ).encode()

    return repacked(pack, reseal)


def failing(content: bytes, path: Path) -> set[str]:
    first, second, _ = outcome(content, path)
    wrong = {name for name, ok in first.items() if not ok}
    assert wrong == {name for name, ok in second.items() if not ok}
    return wrong


def overspend(found: dict[str, Any]) -> None:
    found["ledger.json"]["entries"][1]["amount"] = 101


def overspend_for_a_while(found: dict[str, Any]) -> None:
    entries = found["ledger.json"]["entries"]
    entries[1]["amount"] = 101
    entries.append(entry("release", "reserved", "available", 41, "x2"))


def unbalance(found: dict[str, Any]) -> None:
    found["ledger.json"]["accounts"][0]["settled"] = 29


def repeat_key(found: dict[str, Any]) -> None:
    entries = found["ledger.json"]["entries"]
    entries.append(entry("reserve", "available", "reserved", 1, "r1"))


def hide_account(found: dict[str, Any]) -> None:
    found["ledger.json"]["accounts"] = []


def negative_entry(found: dict[str, Any]) -> None:
    found["ledger.json"]["entries"][1]["amount"] = -1


def unknown_pool(found: dict[str, Any]) -> None:
    found["ledger.json"]["entries"][1]["credit"] = "elsewhere"


def other_policy(found: dict[str, Any]) -> None:
    found["decisions.json"]["decisions"][0]["bundle_digest"] = "sha256:" + "0" * 64


def other_input(found: dict[str, Any]) -> None:
    found["decisions.json"]["decisions"][0]["input_canonical"] = "[]"


def other_request(found: dict[str, Any]) -> None:
    found["approvals.json"]["approvals"][0]["request_canonical"] = "{}"


def unsigned_release(found: dict[str, Any]) -> None:
    found["releases.json"]["releases"][0]["digest"] = "sha256:" + "1" * 64


@pytest.mark.parametrize(
    ("change", "step"),
    [
        (overspend, "ledger"),
        (overspend_for_a_while, "ledger"),
        (unbalance, "ledger"),
        (repeat_key, "ledger"),
        (hide_account, "ledger"),
        (negative_entry, "ledger"),
        (unknown_pool, "ledger"),
        (other_policy, "decisions"),
        (other_input, "decisions"),
        (other_request, "approvals"),
        (unsigned_release, "releases"),
    ],
)
def test_what_does_not_add_up_is_found(
    change: Callable[[dict[str, Any]], None], step: str, signer: MemorySigner, tmp_path: Path
) -> None:
    contents = make_contents(signer, change=change)
    pack = build_pack(contents, signer=signer, identity=TOWER)
    assert failing(pack, tmp_path / "p.zip") == {step}


def test_even_the_maker_cannot_change_a_record(signer: MemorySigner, tmp_path: Path) -> None:
    contents = make_contents(signer)

    def rewrite(files: dict[str, bytes]) -> None:
        lines = files["records.jsonl"].split(b"\n")
        lines[2] = lines[2].replace(b'"id":"ada"', b'"id":"eve"')
        files["records.jsonl"] = b"\n".join(lines)

    def rewrite_and_prove(files: dict[str, bytes]) -> None:
        rewrite(files)
        proof = json.loads(files["proof.json"])
        proof["leaves"][2] = leaf_hash(files["records.jsonl"].split(b"\n")[2]).hex()
        files["proof.json"] = json.dumps(proof).encode()

    def swap(files: dict[str, bytes]) -> None:
        lines = files["records.jsonl"].split(b"\n")
        lines[1], lines[2] = lines[2], lines[1]
        files["records.jsonl"] = b"\n".join(lines)

    def drop(files: dict[str, bytes]) -> None:
        files["records.jsonl"] = files["records.jsonl"].split(b"\n", 1)[1]

    path = tmp_path / "p.zip"
    assert failing(resealed(contents, signer, rewrite), path) == {"inclusion"}
    assert "inclusion" in failing(resealed(contents, signer, rewrite_and_prove), path)
    assert "inclusion" in failing(resealed(contents, signer, swap), path)
    assert "inclusion" in failing(resealed(contents, signer, drop), path)


@pytest.mark.parametrize(
    ("odd", "step"),
    [
        ({5: {"prev": "ab" * 32}}, "chain"),
        ({0: {"prev": "ab" * 32}}, "chain"),
        ({5: {"seq": 6}}, "chain"),
        ({5: {"seq": -5}}, "records"),
        ({5: {"namespace": "elsewhere"}}, "records"),
        ({5: {"goal": "another"}}, "records"),
        ({5: {"extra": 1}}, "records"),
        ({5: {"prev": "AB" * 32}}, "records"),
    ],
)
def test_odd_record_in_the_journal_itself_is_named(
    odd: dict[int, dict[str, Any]], step: str, signer: MemorySigner, tmp_path: Path
) -> None:
    """The tree holds these records as they are; what they say is wrong."""
    pack = build_pack(make_contents(signer, odd=odd), signer=signer, identity=TOWER)
    assert step in failing(pack, tmp_path / "p.zip")
    bad = inspect_pack(tmp_path / "p.zip").first_bad
    theirs = verify(str(tmp_path / "p.zip")).first_bad
    assert bad is not None
    assert theirs is not None
    assert bad.position == theirs["position"] == (0 if 0 in odd else 4)


def test_seal_and_signature_belong_together(
    pack: bytes, signer: MemorySigner, tmp_path: Path
) -> None:
    """Another valid signature of the same manifest is not the one that was sealed."""

    def sign_again(files: dict[str, bytes]) -> None:
        again = signer.sign_blob(files["manifest.json"], identity=TOWER)
        files["manifest.sigstore.json"] = again.encode()

    assert failing(repacked(pack, sign_again), tmp_path / "p.zip") == {"seal"}


def test_signature_must_fit_the_manifest(pack: bytes, signer: MemorySigner, tmp_path: Path) -> None:
    """A seal over a signature of something else does not help."""

    def sign_other(files: dict[str, bytes]) -> None:
        files["manifest.sigstore.json"] = signer.sign_blob(b"other", identity=TOWER).encode()
        digests = [
            hashlib.sha256(files[name]).hexdigest()
            for name in ("manifest.json", "manifest.sigstore.json")
        ]
        files["seal.txt"] = signer.sign_note(
            f"clearance.local/evidence-pack\n{GOAL}\nmanifest sha256:{digests[0]}\n"
            f"signature sha256:{digests[1]}\n"
        ).encode()

    assert failing(repacked(pack, sign_other), tmp_path / "p.zip") == {"signature"}


def test_verifier_is_written_for_python_3_9() -> None:
    ast.parse(VERIFIER.read_text(), feature_version=(3, 9))


def ledger_record(**changes: Any) -> dict[str, Any]:
    body = {"unit": "gpu_ms", "amount": "60", "debit": "available", "credit": "reserved"}
    return {
        "action": "ledger.reserve",
        "object": {"kind": "ledger_entry", "id": "e1"},
        "body": {**body, **changes},
    }


@pytest.mark.parametrize(
    ("record", "steps"),
    [
        (ledger_record(), set()),
        (ledger_record(amount="61"), {"ledger"}),
        (ledger_record(unit="tokens"), {"ledger"}),
        ({**ledger_record(), "action": "ledger.settle"}, {"ledger"}),
        ({**ledger_record(), "object": {"kind": "ledger_entry", "id": "hidden"}}, {"ledger"}),
    ],
)
def test_ledger_agrees_with_the_journal(
    record: dict[str, Any], steps: set[str], signer: MemorySigner, tmp_path: Path
) -> None:
    def name_entry(found: dict[str, Any]) -> None:
        found["ledger.json"]["entries"][1]["uid"] = "e1"

    contents = make_contents(signer, change=name_entry, odd={5: record})
    pack = build_pack(contents, signer=signer, identity=TOWER)
    assert failing(pack, tmp_path / "p.zip") == steps
    bad = inspect_pack(tmp_path / "p.zip").first_bad
    assert (bad and bad.seq) == (5 if steps else None)


def test_what_was_never_in_force_needs_no_signature(signer: MemorySigner, tmp_path: Path) -> None:
    def refuse(found: dict[str, Any]) -> None:
        denied = {"digest": "sha256:" + "1" * 64, "state": "denied"}
        found["releases.json"]["releases"].append(denied)
        undecided = {"uid": "d2", "bundle_digest": "", "outcome": "deny"}
        found["decisions.json"]["decisions"].append(undecided)

    def allow(found: dict[str, Any]) -> None:
        refuse(found)
        found["decisions.json"]["decisions"][1]["outcome"] = "allow"
        found["releases.json"]["releases"][1]["state"] = "active"

    for change, steps in ((refuse, set()), (allow, {"decisions", "releases"})):
        contents = make_contents(signer, change=change)
        pack = build_pack(contents, signer=signer, identity=TOWER)
        assert failing(pack, tmp_path / "p.zip") == steps


def test_another_goals_record_is_found(signer: MemorySigner, tmp_path: Path) -> None:
    contents = make_contents(signer)
    lines = journal(12, foreign=frozenset({3, 7}))
    tree = MerkleTree(map(leaf_hash, lines))
    leaking = replace(
        contents,
        records=[PackedRecord(i, line) for i, line in enumerate(lines)],
        siblings=tree.siblings(range(12)),
    )
    pack = build_pack(leaking, signer=signer, identity=TOWER)
    assert "records" in failing(pack, tmp_path / "p.zip")


def test_rewritten_history_is_found(signer: MemorySigner, tmp_path: Path) -> None:
    other = MerkleTree(map(leaf_hash, journal(20, foreign=frozenset({1}))))
    contents = make_contents(signer)
    forked = replace(
        contents,
        older=[OlderCheckpoint(checkpoint(signer, other, 6), contents.older[1].consistency)],
    )
    pack = build_pack(forked, signer=signer, identity=TOWER)
    assert failing(pack, tmp_path / "p.zip") == {"consistency"}


def test_signature_by_another_identity_is_found(signer: MemorySigner, tmp_path: Path) -> None:
    contents = make_contents(signer)
    wrong = replace(contents, bundles=[replace(contents.bundles[0], identity=TOWER)])
    pack = build_pack(wrong, signer=signer, identity=TOWER)
    assert "bundles" in failing(pack, tmp_path / "p.zip")


class Impostor:
    """Shows one public key and signs with another's private key."""

    def __init__(self, shown: ec.EllipticCurvePrivateKey) -> None:
        self._shown, self._own = shown, ec.generate_private_key(ec.SECP256R1())

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._shown.public_key()

    def sign(self, content: bytes, algorithm: ec.ECDSA) -> bytes:
        return self._own.sign(content, algorithm)


@pytest.mark.parametrize("name", ["log", "ctlog"])
def test_forged_signature_under_a_known_key_id_is_found(
    name: str, signer: MemorySigner, tmp_path: Path
) -> None:
    forger = MemorySigner()
    keys = signer._open()
    forger._keys = replace(keys, **{name: Impostor(getattr(keys, name))})
    forged = SignedFile("x", forger.sign_blob(b"x", identity=AGENT), AGENT, payload=b"x")
    contents = replace(make_contents(signer), bundles=[forged], documents={})
    pack = build_pack(contents, signer=signer, identity=TOWER)
    assert failing(pack, tmp_path / "p.zip") == {"bundles"}


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (("certificate", "rawBytes"), "the certificate is not signed by its issuer"),
        (
            ("tlogEntries", 0, "inclusionPromise", "signedEntryTimestamp"),
            "the log did not promise this entry",
        ),
    ],
)
def test_each_signature_of_a_bundle_is_checked(
    path: tuple[str | int, ...], problem: str, signer: MemorySigner
) -> None:
    """The last bit of one signature is changed; no other check is in the way."""
    document = json.loads(signer.sign_blob(b"x", identity=AGENT))
    trusted = TrustedRoot(signer.trusted_root().encode())
    Bundle(json.dumps(document).encode()).check(trusted, identity=AGENT, issuer=DEFAULT_ISSUER)
    node = document["verificationMaterial"]
    for key in path[:-1]:
        node = node[key]
    raw = bytearray(base64.b64decode(node[path[-1]]))
    raw[-1] ^= 1
    node[path[-1]] = base64.b64encode(bytes(raw)).decode()
    with pytest.raises(Failed, match=problem):
        Bundle(json.dumps(document).encode()).check(trusted, identity=AGENT, issuer=DEFAULT_ISSUER)


@pytest.mark.parametrize("name", ["log", "ctlog", "intermediate"])
def test_signature_with_one_foreign_key_is_found(
    name: str, signer: MemorySigner, tmp_path: Path
) -> None:
    """All is as it must be but for one signature: the CA's, its CT log's or the log's."""
    forger = MemorySigner()
    forger._keys = replace(signer._open(), **{name: ec.generate_private_key(ec.SECP256R1())})
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "x", "digest": {"sha256": "ab" * 32}}],
        "predicateType": "https://clearance.local/ab/v1",
        "predicate": {},
    }
    good = make_contents(signer)
    for forged in (
        SignedFile("x", forger.sign_blob(b"x", identity=AGENT), AGENT, payload=b"x"),
        SignedFile("x", forger.sign_statement(statement, identity=AGENT), AGENT),
    ):
        contents = replace(good, bundles=[*good.bundles, forged])
        pack = build_pack(contents, signer=signer, identity=TOWER)
        assert failing(pack, tmp_path / "p.zip") == {"bundles"}


def test_signature_from_another_issuer_is_found(signer: MemorySigner, tmp_path: Path) -> None:
    elsewhere = MemorySigner(issuer="https://elsewhere.example")
    elsewhere._keys = signer._open()
    forged = SignedFile("x", elsewhere.sign_blob(b"x", identity=AGENT), AGENT, payload=b"x")
    good = make_contents(signer)
    contents = replace(good, bundles=[*good.bundles, forged])
    pack = build_pack(contents, signer=signer, identity=TOWER)
    assert failing(pack, tmp_path / "p.zip") == {"bundles"}


def test_pack_that_cannot_be_true_is_not_made(signer: MemorySigner) -> None:
    good = make_contents(signer)
    for wrong, text in (
        (replace(good, siblings=good.siblings[:-1]), "lacks a hash"),
        (replace(good, records=good.records[1:]), "fit|root"),
        (replace(good, records=good.records[::-1]), "order"),
        (replace(good, documents={"../evil": b""}), "not a name"),
        (replace(good, documents={"verify.py": b""}), "keeps for itself"),
        (replace(good, documents={"keys/x": b""}), "keeps for itself"),
        (replace(good, policies={"sha256:" + "0" * 64: b"x"}), "hash to another"),
        (replace(good, bundles=[good.bundles[0]] * 2), "two bundles"),
    ):
        with pytest.raises(EvidenceError, match=text):
            build_pack(wrong, signer=signer, identity=TOWER)


def test_pack_of_an_empty_goal(signer: MemorySigner, tmp_path: Path) -> None:
    good = make_contents(signer)
    lines = journal(12, foreign=frozenset({3, 7}))
    tree = MerkleTree(map(leaf_hash, lines))
    empty = replace(
        good, records=[], siblings=tree.siblings([]), documents={}, bundles=[], older=[]
    )
    pack = build_pack(empty, signer=signer, identity=TOWER)
    assert failing(pack, tmp_path / "p.zip") == set()


def run_verifier(
    *arguments: str, isolated: bool = True, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    # -I and -S leave out site-packages, hence `cryptography`: the openssl command must do.
    flags = ["-I", "-S"] if isolated else ["-I"]
    environment = dict(os.environ) if path is None else {**os.environ, "PATH": path}
    return subprocess.run(
        [sys.executable, *flags, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
    )


def test_verifier_from_the_pack_with_nothing_installed(pack: bytes, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl: the command line tool")
    path = tmp_path / "pack.zip"
    path.write_bytes(pack)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "out")
    probe = run_verifier("-c", "import cryptography")
    assert probe.returncode != 0, "cryptography is not really absent"
    for target in (path, tmp_path / "out"):
        good = run_verifier(str(tmp_path / "out" / "verify.py"), str(target))
        assert good.returncode == 0, good.stdout + good.stderr
        assert good.stdout.rstrip().endswith("VERIFIED")
        assert "FAIL" not in good.stdout
        assert "what this pack cannot show" in good.stdout
    changed = bytearray(pack)
    changed[pack.index(b'"id":"ada"') + 7] ^= 1
    path.write_bytes(bytes(changed))
    bad = run_verifier(str(VERIFIER), str(path), "--json")
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["first_bad"]["seq"] == "0"
    assert bad.stderr == ""
    assert not (tmp_path / "out" / "__pycache__").exists()


def test_verifier_without_any_crypto_says_so(pack: bytes, tmp_path: Path) -> None:
    (tmp_path / "pack.zip").write_bytes(pack)
    bad = run_verifier(str(VERIFIER), str(tmp_path / "pack.zip"), path=str(tmp_path))
    assert bad.returncode == 1
    assert "needs the Python package cryptography or the openssl command" in bad.stdout


def test_verifier_options(pack: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pack.zip"
    path.write_bytes(pack)
    answer = json.loads(run_verifier(str(VERIFIER), str(path), "--json", isolated=False).stdout)
    assert answer["ok"] is True
    fingerprint = ["--fingerprint", answer["fingerprint"]]
    assert run_verifier(str(VERIFIER), str(path), *fingerprint, isolated=False).returncode == 0
    wrong = run_verifier(str(VERIFIER), str(path), "--fingerprint", "00", isolated=False)
    assert wrong.returncode == 1
    assert run_verifier(str(VERIFIER), str(tmp_path / "none.zip")).returncode == 1
    assert run_verifier(str(VERIFIER)).returncode == 2


def test_audit_path_of_one_record(pack: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pack.zip"
    path.write_bytes(pack)
    lines = journal(12, foreign=frozenset({3, 7}))
    tree = MerkleTree(map(leaf_hash, lines))
    shown = run_verifier(str(VERIFIER), "--path", "5", str(path)).stdout.splitlines()
    values = [line.split()[-1] for line in shown]
    siblings = [bytes.fromhex(value) for value in values[3:-1]]
    assert values[:2] == ["5", "12"]
    assert verify_inclusion(leaf_hash(lines[5]), index=5, size=12, path=siblings, root=tree.root())
    assert run_verifier(str(VERIFIER), "--path", "99", str(path)).returncode == 1


def test_instructions_work_as_written(pack: bytes, tmp_path: Path) -> None:
    """The commands of VERIFY.md, run by a shell as they stand."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl: the command line tool")
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        archive.extractall(tmp_path)
    text = (tmp_path / "VERIFY.md").read_text()
    blocks = [
        "\n".join(line[4:] for line in block.splitlines())
        for block in text.split("\n\n")
        if block.startswith("    ")
    ]
    blocks = [block for block in blocks if "verify.py" not in block]
    assert sum("sigstore --trust-config" in block for block in blocks) == 3
    program = f'sigstore() {{ {sys.executable} -m sigstore "$@"; }}\n'
    script = "set -euo pipefail\n" + program + "\n".join(blocks)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Signature Verified Successfully") == 2
    assert (done.stdout + done.stderr).count("OK: ") == 3
