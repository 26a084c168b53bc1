"""Packs of a time: both verifiers accept them whole, and neither a record out of place."""

import json
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from lineage.evidence.base import EVERY_NAMESPACE, PackContents, PackedRecord
from lineage.evidence.pack import build_pack
from lineage.merkle import MerkleTree, leaf_hash
from lineage.signing.memory import MemorySigner
from tests.lineage.test_evidence import (
    TOWER,
    both_refuse,
    checkpoint,
    journal,
    make_contents,
    outcome,
    repacked,
)

COUNT = 12
FOREIGN = frozenset({3, 7})  # of the namespace `elsewhere`


@pytest.fixture(scope="module")
def signer() -> MemorySigner:
    return MemorySigner()


def at(seq: int) -> str:
    return f"2026-01-01T00:00:00.{seq:06d}Z"


def of_time(
    signer: MemorySigner,
    *,
    namespace: str = EVERY_NAMESPACE,
    first: int = 2,
    last: int = 9,
    seqs: list[int] | None = None,
) -> PackContents:
    """The records from `first` to `last`; `seqs` are others than those the time has."""
    lines = journal(COUNT, foreign=FOREIGN)
    tree = MerkleTree(map(leaf_hash, lines))
    if seqs is None:
        is_whole = namespace == EVERY_NAMESPACE
        seqs = [n for n in range(first, last + 1) if is_whole or n not in FOREIGN]
    contents = make_contents(signer, count=COUNT, foreign=FOREIGN)
    kept = {"goals.json", "decisions.json", "approvals.json", "releases.json"}
    documents = {name: held for name, held in contents.documents.items() if name in kept}
    return replace(
        contents,
        goal_uid="",
        goal_name="",
        namespace=namespace,
        since=at(first),
        until=at(last + 1),
        records=[PackedRecord(n, lines[n]) for n in seqs],
        siblings=tree.siblings(seqs),
        checkpoint=checkpoint(signer, tree, COUNT),
        documents=documents,
    )


def built(contents: PackContents, signer: MemorySigner) -> bytes:
    return build_pack(contents, signer=signer, identity=TOWER)


def test_the_whole_journal_of_a_time_has_no_gap(signer: MemorySigner, tmp_path: Path) -> None:
    pack = built(of_time(signer), signer)
    first, second, report = outcome(pack, tmp_path / "pack.zip")
    assert all(first.values()), first
    assert report.ok, report.steps
    assert first == second
    assert not any("adjacent" in gap for gap in report.gaps)
    assert any("goals.json is not in the pack" in gap for gap in report.gaps)
    assert not any("ledger.json" in gap for gap in report.gaps)
    with zipfile.ZipFile(BytesIO(pack)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        text = archive.read("VERIFY.md").decode()
    assert manifest["range"] == {"namespace": "*", "from": at(2), "until": at(10)}
    assert "goal" not in manifest
    assert f"The journal of every namespace from {at(2)} until before {at(10)}" in text


def test_one_namespace_says_what_it_leaves_out(signer: MemorySigner, tmp_path: Path) -> None:
    pack = built(of_time(signer, namespace="default"), signer)
    first, _, report = outcome(pack, tmp_path / "pack.zip")
    assert all(first.values()), first
    assert report.ok
    assert any("belongs to other namespaces" in gap for gap in report.gaps)


WRONG: dict[str, dict[str, Any]] = {
    "a record before the time": {"first": 4, "seqs": [3, 4, 5, 6, 7, 8, 9]},
    "a record after the time": {"last": 8, "seqs": [2, 3, 4, 5, 6, 7, 8, 9]},
    "a record of another namespace": {"namespace": "default", "seqs": [2, 3, 4]},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_record_out_of_place_is_named(signer: MemorySigner, tmp_path: Path, case: str) -> None:
    report = both_refuse(built(of_time(signer, **WRONG[case]), signer), tmp_path / "pack.zip")
    assert report.first_bad is not None
    assert (
        str(report.first_bad.seq)
        == {"before": "3", "after": "9", "another": "3"}[
            next(word for word in ("before", "after", "another") if word in case)
        ]
    )
    assert not next(step for step in report.steps if step.name == "records").ok


def test_what_it_is_about_cannot_be_changed(signer: MemorySigner, tmp_path: Path) -> None:
    pack = built(of_time(signer), signer)

    def tell(change: Any) -> bytes:
        def edit(files: dict[str, bytes]) -> None:
            manifest = json.loads(files["manifest.json"])
            change(manifest)
            files["manifest.json"] = json.dumps(manifest).encode()

        return repacked(pack, edit)

    both_refuse(tell(lambda one: one["range"].update(until=at(9))), tmp_path / "pack.zip")
    goal = {"uid": "x", "namespace": "default", "name": "x"}
    both_refuse(tell(lambda one: one.update(goal=goal)), tmp_path / "pack.zip")
    both_refuse(tell(lambda one: one.pop("range")), tmp_path / "pack.zip")
    both_refuse(tell(lambda one: one["range"].update(namespace=None)), tmp_path / "pack.zip")


def test_a_moment_is_written_in_one_way(signer: MemorySigner, tmp_path: Path) -> None:
    for since in ("2026-01-01", "2026-1-1T00:00:00.000002Z", "2026-01-01T00:00:00.000002+00:00"):
        contents = replace(of_time(signer), since=since)
        both_refuse(built(contents, signer), tmp_path / "pack.zip")


def test_a_record_left_out_of_the_whole_journal_is_seen(
    signer: MemorySigner, tmp_path: Path
) -> None:
    left_out = of_time(signer, seqs=[2, 3, 5, 6, 7, 8, 9])
    _, _, report = outcome(built(left_out, signer), tmp_path / "pack.zip")
    assert any("1 of 6 neighbouring records" in gap for gap in report.gaps)
