"""Export and verification of an evidence pack of 100,000 records, against hashing its bytes."""

import base64
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import rfc8785

from lineage.evidence.base import PackContents, PackedRecord
from lineage.evidence.inspect import inspect_pack
from lineage.evidence.pack import write_pack
from lineage.merkle import MerkleTree, leaf_hash
from lineage.signing.keys import DEFAULT_ISSUER
from lineage.signing.local import LocalSigner

RECORDS = int(os.environ.get("RECORDS", "100000"))
IDENTITY = "spiffe://clearance.local/tower"
GOAL = "0b0e7a52-7c9c-4d0e-8f0a-5a3c1f1d2e3f"
VERIFIER = Path(__file__).parents[1] / "lineage/evidence/verify.py"


def make_journal(count: int) -> list[bytes]:
    """Chained records, each ten minutes of a real Goal's size (about 420 bytes)."""
    lines, prev = [], "0" * 64
    for seq in range(count):
        record = {
            "seq": seq,
            "at": f"2026-01-01T00:00:00.{seq % 1_000_000:06d}Z",
            "actor": {"kind": "system", "id": "worker"},
            "action": "ledger.settled",
            "object": {"kind": "attempt", "id": f"attempt-{seq}"},
            "namespace": "default",
            "goal": GOAL,
            "body": {"unit": "gpu_ms", "amount": seq % 1000, "key": f"attempt-{seq}/tick-1"},
            "prev": prev,
        }
        lines.append(rfc8785.dumps(record))
        prev = hashlib.sha256(lines[-1]).hexdigest()
    return lines


def make_contents(signer: LocalSigner, lines: list[bytes], tree: MerkleTree) -> PackContents:
    root = base64.b64encode(tree.root()).decode()
    indexes = range(len(lines))
    return PackContents(
        goal_uid=GOAL,
        namespace="default",
        goal_name="bench",
        exported_at="2026-01-02T00:00:00Z",
        issuer=DEFAULT_ISSUER,
        records=[PackedRecord(index, line) for index, line in enumerate(lines)],
        siblings=tree.siblings(indexes),
        checkpoint=signer.sign_note(f"clearance.local/journal\n{len(lines)}\n{root}\n"),
    )


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run() -> list[dict[str, object]]:
    """Seconds, MB/s and the ratio to one SHA-256 over the same bytes."""
    lines = make_journal(RECORDS)
    with tempfile.TemporaryDirectory() as folder:
        signer = LocalSigner(Path(folder) / "signing")
        path = Path(folder) / "pack.zip"
        signer.sign_blob(b"warm", identity=IDENTITY)

        def export() -> None:
            tree = MerkleTree(leaf_hash(line) for line in lines)
            with path.open("wb") as target:
                write_pack(
                    make_contents(signer, lines, tree), target, signer=signer, identity=IDENTITY
                )

        def verify_alone() -> None:
            subprocess.run(
                [sys.executable, "-I", str(VERIFIER), str(path)],
                check=True,
                stdout=subprocess.DEVNULL,
            )

        def inspect() -> None:
            report = inspect_pack(path)
            assert report.ok, report.steps

        seconds = {"export": timed(export)}
        content = path.read_bytes()
        peer = timed(lambda: hashlib.sha256(content).digest())
        seconds["verify.py"] = timed(verify_alone)
        seconds["inspect_pack"] = timed(inspect)
        signing = timed(lambda: [signer.sign_blob(b"x", identity=IDENTITY) for _ in range(200)])
    size = len(content) / 1e6
    figures: list[dict[str, object]] = []
    for name, value in seconds.items():
        label = f"evidence {name}, {RECORDS} records"
        figures.append(figure(label, value, "s", "SHA-256 of the pack", value / peer))
        figures.append(figure(label, size / value, "MB/s", "SHA-256 of the pack", peer / value))
    figures.append(figure("evidence pack size", size, "MB", "", None))
    figures.append(figure("sign_blob", 200 / signing, "1/s", "aim of 50/s", 200 / signing / 50))
    return figures


def figure(name: str, value: float, unit: str, peer: str, ratio: float | None) -> dict[str, object]:
    """One line of a benchmark."""
    return {"name": name, "value": value, "unit": unit, "peer": peer, "ratio": ratio}


if __name__ == "__main__":
    for line in run():
        ratio = "" if line["ratio"] is None else f"{line['ratio']:10.3f} x {line['peer']}"
        print(f"{line['name']:<45} {line['value']:10.2f} {line['unit']:<5} {ratio}")
