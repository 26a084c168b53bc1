"""VERIFY.md: how to check a pack with tools that are not ours, as exact commands."""

import shlex

from lineage.evidence.base import EVERY_NAMESPACE, PackContents

_TEMPLATE = """# How to verify this pack

{subject}, exported {exported_at}.
Nothing below needs a network or a program of ours, apart from the first section.

## 1. With the verifier in this pack

    python3 -I verify.py pack.zip        # the ZIP as you received it
    python3 -I verify.py .               # after unpacking it into an empty folder

Python 3.9 or later. Signatures are checked with the Python package `cryptography` where it is
installed, otherwise with the `openssl` command (3.0 or later). It prints one line a step, names the
first record that is wrong, lists what this pack cannot show, and exits with 0 only when all holds.
`--json` prints the same as JSON. You run a program from the pack to check the pack: read it first
(it is one file), or take it from the source of the product, or use the commands below.

## 2. Whom you trust

Everything rests on the keys in `keys/`. Compare this with what the operator published elsewhere:

    cat keys/trusted_root.json keys/checkpoint.vkey | sha256sum

`verify.py` prints it too, and `--fingerprint HEX` makes it a condition.

## 3. The manifest and who signed it

`manifest.json` names every file with its SHA-256 and size. Its signature, certificate and log entry
(the Python package `sigstore` 4.5):

    sigstore --trust-config keys/trust_config.json verify identity --offline \\
        --bundle manifest.sigstore.json \\
        --cert-identity {identity} \\
        --cert-oidc-issuer {issuer} manifest.json

The files against it:

    python3 -c 'import json
    for name, file in json.load(open("manifest.json"))["files"].items():
        print(file["sha256"] + "  " + name)' | sha256sum --check

## 4. The seal and the checkpoint

Both are signed notes (c2sp.org/signed-note), Ed25519, key `keys/checkpoint.vkey`. With OpenSSL 3:

    for note in seal.txt checkpoint.txt; do
      awk '/^$/{{exit}} {{print}}' $note > note.text
      tail -n 1 $note | cut -d' ' -f3 | base64 -d | tail -c 64 > note.sig
      openssl pkeyutl -verify -pubin -inkey keys/checkpoint.pem -rawin \\
        -in note.text -sigfile note.sig
    done

`seal.txt` names the SHA-256 of `manifest.json` and `manifest.sigstore.json`; `checkpoint.txt` gives
the journal's size and its Merkle root in base64.

## 5. The records

Each line of `records.jsonl` is one record in canonical JSON (RFC 8785). Its hash, which the next
record in the journal repeats in `prev`, and its leaf hash in the tree of RFC 9162:

    sed -n 1p records.jsonl | tr -d '\\n' | sha256sum
    (printf '\\000'; sed -n 1p records.jsonl | tr -d '\\n') | sha256sum

`proof.json` gives the number of each leaf, its hash, and in `siblings`, from left to right, the
hash of each largest subtree that holds none of this pack's records. They and the leaves give the
root: an inner node is SHA-256(0x01, left, right), a tree of n leaves splits at the largest power of
two below n. A pack holds the records of one Goal, or of one time, and no others, hence one proof
for all of them.
`python3 verify.py --path NUMBER pack.zip` prints the usual audit path of one record.
`checkpoints/` and `consistency.json` hold earlier checkpoints and the RFC 9162 consistency proofs
that the tree only grew.

## 6. What agents signed
{bundles}
`policies/` and `manifests/` hold policy bundles and OCI manifests under their own SHA-256:

    for file in policies/*.json manifests/*.json; do sha256sum $file; done

## 7. What this pack cannot show

See `gaps` in `manifest.json`; `verify.py` prints them.
"""
_BUNDLE = """
    sigstore --trust-config keys/trust_config.json verify identity --offline \\
        --bundle bundles/{name}.sigstore.json --cert-identity {identity} \\
        --cert-oidc-issuer {issuer} {target}
"""
_BUNDLES_SHOWN = 50


def verify_instructions(contents: PackContents, *, identity: str) -> str:
    """The text of VERIFY.md for one pack whose manifest `identity` signs."""
    blocks = []
    for signed in contents.bundles:
        if signed.payload is None and not signed.sha256:
            continue
        target = f"payloads/{signed.name}" if signed.payload is not None else ""
        blocks.append(
            _BUNDLE.format(
                name=signed.name,
                identity=shlex.quote(signed.identity),
                issuer=shlex.quote(contents.issuer),
                target=target or "sha256:" + signed.sha256.removeprefix("sha256:"),
            )
        )
    statements = sum(1 for one in contents.bundles if one.payload is None and not one.sha256)
    text = "".join(blocks[:_BUNDLES_SHOWN])
    if len(blocks) > _BUNDLES_SHOWN:
        text += f"\n{len(blocks) - _BUNDLES_SHOWN} more in the same way: see `bundles/`.\n"
    if statements:
        text += (
            f"\n{statements} bundles hold in-toto statements (DSSE): `verify.py` and sigstore's "
            "`Verifier.verify_dsse` check them.\n"
        )
    return _TEMPLATE.format(
        subject=_subject(contents),
        exported_at=contents.exported_at,
        identity=shlex.quote(identity),
        issuer=shlex.quote(contents.issuer),
        bundles=text or "\nNothing in this pack.\n",
    )


def _subject(contents: PackContents) -> str:
    if not contents.is_range:
        return f"Goal `{contents.goal_name}` in namespace `{contents.namespace}`"
    where = f"namespace `{contents.namespace}`"
    if contents.namespace == EVERY_NAMESPACE:
        where = "every namespace"
    return f"The journal of {where} from {contents.since} until before {contents.until}"
