"""The attempt's SVIDs: exchanged for what the platform gave it, then renewed in a thread."""

import datetime as dt
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .errors import ClearanceError, Revoked, Unavailable
from .http import HttpClient

AUDIENCE = ["clearance"]
RENEW_AT = 0.5  # of a document's life
SHORTEST_PAUSE_SECONDS = 1.0
# Between two looks at the wall clock. A process that was stopped and continued wakes up with a
# lapsed document and should notice soon.
LOOK_SECONDS = 2.0

Now = Callable[[], dt.datetime]


def utc_now() -> dt.datetime:
    """The wall clock."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True)
class Documents:
    """What the control plane issued last."""

    spiffe_id: str
    x509_svid: str
    jwt_svid: str
    bundle: Any
    renew_at: dt.datetime


def _moment(value: Any) -> dt.datetime:
    if isinstance(value, int | float):
        return dt.datetime.fromtimestamp(value, dt.UTC)
    moment = dt.datetime.fromisoformat(str(value))
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


class Identity:
    """Holds one key for the life of the attempt, so that even a lapsed document can be renewed."""

    def __init__(self, *, api_url: str, http: HttpClient, now: Now = utc_now) -> None:
        self._api_url = api_url
        self._http = http
        self._now = now
        self._key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        signed = request.sign(self._key, hashes.SHA256())
        self._csr = signed.public_bytes(serialization.Encoding.PEM).decode()
        self._documents: Documents | None = None
        self._refusal: Revoked | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name="clearance-svid", daemon=True)

    @property
    def documents(self) -> Documents:
        """The current documents. Raises: ClearanceError before the exchange."""
        if self._documents is None:
            raise ClearanceError("The attempt has no identity yet")
        return self._documents

    @property
    def private_key_pem(self) -> str:
        """The key of the X.509-SVID, for connections to others; it never leaves this process."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()

    def token(self) -> str:
        """The bearer token to use now. Raises: Revoked."""
        if self._refusal is not None:
            raise self._refusal
        return self.documents.jwt_svid

    def exchange(self, proof: Mapping[str, str]) -> None:
        """Trade a proof for the first documents and begin renewing them.

        `proof` is `{"join_token": …}` or `{"service_account_token": …}`.
        """
        answer = self._http.json(
            "POST",
            f"{self._api_url}/api/v1/identity/exchange",
            {**proof, "csr": self._csr, "audience": AUDIENCE},
            is_authenticated=False,
        )
        self._accept(answer)
        self._thread.start()

    def renew(self, used_token: str) -> None:
        """Get new documents, unless somebody did since `used_token` was read.

        Raises: Revoked when the control plane refuses, Unavailable.
        """
        with self._lock:
            if self.documents.jwt_svid != used_token:
                return
            try:
                answer = self._http.json(
                    "POST",
                    f"{self._api_url}/api/v1/identity/renew",
                    {"csr": self._csr, "audience": AUDIENCE},
                    headers={"Authorization": f"Bearer {used_token}"},
                    is_authenticated=False,
                )
            except Revoked as refusal:
                self._refusal = refusal
                raise
            self._accept(answer)

    def _accept(self, answer: Any) -> None:
        now = self._now()
        try:
            expires_at = min(_moment(answer["jwt_expires_at"]), _moment(answer["x509_expires_at"]))
            life = (expires_at - now) * RENEW_AT
            pause = max(life, dt.timedelta(seconds=SHORTEST_PAUSE_SECONDS))
            self._documents = Documents(
                spiffe_id=str(answer["spiffe_id"]),
                x509_svid=str(answer["x509_svid"]),
                jwt_svid=str(answer["jwt_svid"]),
                bundle=answer.get("bundle"),
                renew_at=now + pause,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ClearanceError(
                "The control plane's identity documents cannot be read", detail=str(error)
            ) from error

    def _keep_fresh(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            if self._now() < self.documents.renew_at:
                continue
            try:
                self.renew(self.documents.jwt_svid)
            except Revoked:
                return  # every later call raises it
            except (Unavailable, ClearanceError):
                continue  # the old document may still do; the next look tries again

    def close(self) -> None:
        """Stop renewing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=LOOK_SECONDS)
