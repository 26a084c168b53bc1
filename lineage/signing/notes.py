"""C2SP signed notes: text with signature lines, the form of checkpoints and seals."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from lineage.signing.base import SigningError, VerificationFailed

_ED25519 = b"\x01"  # signature type, c2sp.org/signed-note
_DASH = "\N{EM DASH} "
_SIGNATURE_BYTES = 64
_NOTE_MAX_CHARS = 1 << 20


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A note's key: its name and its Ed25519 public key."""

    name: str
    key: ed25519.Ed25519PublicKey

    @classmethod
    def parse(cls, text: str) -> Self:
        """From C2SP's form (see `text`) and a newline. Raises VerificationFailed."""
        name, _, rest = text.partition("+")
        try:
            raw = base64.b64decode(rest.partition("+")[2].removesuffix("\n"), validate=True)
            found = cls(name, ed25519.Ed25519PublicKey.from_public_bytes(raw[1:]))
        except ValueError as error:
            raise VerificationFailed("the verifier key cannot be read.") from error
        if found.text + "\n" != text:
            raise VerificationFailed("the verifier key is not as C2SP writes it.")
        return found

    @property
    def hint(self) -> bytes:
        """The four bytes that say which key signed: SHA-256(name, newline, type, key)."""
        content = self.name.encode() + b"\n" + _ED25519 + self.key.public_bytes_raw()
        return hashlib.sha256(content).digest()[:4]

    @property
    def text(self) -> str:
        """The verifier key as C2SP writes it: `name+hint+base64(type || key)`."""
        encoded = base64.b64encode(_ED25519 + self.key.public_bytes_raw()).decode()
        return f"{self.name}+{self.hint.hex()}+{encoded}"

    def open(self, note: str) -> str:
        """The note's text. Strict: one signature, in the one encoding it can have.

        Raises VerificationFailed.
        """
        text, separator, line = note.rpartition("\n\n")
        prefix = f"{_DASH}{self.name} "
        if not separator or not line.startswith(prefix) or len(note) > _NOTE_MAX_CHARS:
            raise VerificationFailed(f"the note is not signed by {self.name}.")
        text += "\n"
        try:
            blob = base64.b64decode(line.removeprefix(prefix).removesuffix("\n"), validate=True)
        except ValueError as error:
            raise VerificationFailed("the note's signature is not base64.") from error
        if (
            len(blob) != len(self.hint) + _SIGNATURE_BYTES
            or blob[:4] != self.hint
            or note != _join(text, self.name, blob)
        ):
            raise VerificationFailed("the note's signature line is not as C2SP writes it.")
        try:
            self.key.verify(blob[4:], text.encode())
        except InvalidSignature as error:
            raise VerificationFailed("the note's signature does not fit its text.") from error
        return text


def sign_note(text: str, *, name: str, key: ed25519.Ed25519PrivateKey) -> str:
    """`text` (which ends in a newline) with one signature line. Raises SigningError."""
    if not text.endswith("\n") or "\n\n" in text or text.startswith("\n"):
        raise SigningError("a note's text ends in one newline and has no empty line.")
    if any(ord(character) < 0x20 and character != "\n" for character in text):
        raise SigningError("a note's text has no control characters.")
    if len(text) > _NOTE_MAX_CHARS:
        raise SigningError(f"a note's text is at most {_NOTE_MAX_CHARS} characters.")
    hint = NoteVerifier(name, key.public_key()).hint
    return _join(text, name, hint + key.sign(text.encode()))


def _join(text: str, name: str, blob: bytes) -> str:
    return f"{text}\n{_DASH}{name} {base64.b64encode(blob).decode()}\n"
