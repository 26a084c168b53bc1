"""Keeping the certificates: the Secret that replicas agree by, the webhooks that trust them."""

import asyncio
import base64
import datetime as dt
import json
import logging
import os
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from agents.admission.certificates import (
    Authority,
    Certificates,
    Pair,
    Terms,
    first_certificates,
    next_certificates,
    told,
)
from agents.admission.configurations import bundle_patch, configurations, trusts
from agents.cluster.base import ClusterError
from agents.cluster.kubernetes.api import (
    KubernetesApi,
    ObjectAbsent,
    ObjectConflict,
    object_path,
)

logger = logging.getLogger(__name__)

Object = dict[str, Any]

MANAGER: Final = "clearance-admission"
SECRET_NAME: Final = "clearance-admission-tls"  # noqa: S105 - the name of one
SECRETS: Final = "api/v1/secrets"
LOOK_SECONDS: Final = 10.0  # far below the overlap of two authorities
LOAD_SECONDS: Final = 5.0
SWAPS: Final = 8  # tries of one compare-and-swap; each loser reads again


class Shown:
    """The certificate that the server shows to those who connect from now on."""

    def __init__(self, *, client_authority: Path | None = None) -> None:
        """With an authority, whoever shows a certificate must show one of its own.

        Raises OSError, ssl.SSLError when there is no certificate in the file.
        """
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.checks_callers = client_authority is not None
        if client_authority is not None:
            self.context.load_verify_locations(client_authority)
            # Kubelets show none when they probe: the webhooks themselves ask for one.
            self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.loop: asyncio.AbstractEventLoop | None = None  # the server's, once it runs
        self._shown: Pair | None = None

    def show(self, pair: Pair) -> bool:
        """Show this one; whether it is another than before. Raises ClusterError."""
        if pair == self._shown:
            return False
        if self.loop is None:
            self._load(pair)
            return True
        # In the server's own thread: a handshake copies what is being replaced here.
        loaded = asyncio.run_coroutine_threadsafe(self._load_soon(pair), self.loop)
        try:
            loaded.result(LOAD_SECONDS)
        except TimeoutError:
            raise ClusterError("the server is too busy to show another certificate") from None
        return True

    async def _load_soon(self, pair: Pair) -> None:
        self._load(pair)

    def _load(self, pair: Pair) -> None:
        """Through a file in memory: no key of ours is ever on a disk."""
        file = os.memfd_create("clearance-admission-tls")
        try:
            os.write(file, pair.key + pair.certificate)
            self.context.load_cert_chain(f"/proc/self/fd/{file}")
        finally:
            os.close(file)
        self._shown = pair


class Keeper:
    """Keeps certificates in a Secret, and the webhooks' trust in step with them."""

    def __init__(
        self,
        api: KubernetesApi,
        shown: Shown,
        *,
        namespace: str,
        hosts: Sequence[str],
        url: str = "",
        terms: Terms | None = None,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        """Ask nothing yet. With `url` the webhook configurations are ours to apply."""
        self._api = api
        self._shown = shown
        self._path = object_path(SECRETS, namespace)
        self._hosts = tuple(hosts)
        self._url = url
        self._terms = terms or Terms()
        self._clock = clock
        self._held: Certificates | None = None
        self.is_told = False  # whether the webhooks trust what is shown
        # Until the Secret is read; nobody trusts it, but probes find somebody there.
        shown.show(self._first().serving)

    def look(self) -> None:
        """Take the next steps. Repeating it changes nothing until something is due.

        Raises ClusterError.
        """
        held = self._agree(self._due)
        if self._shown.show(held.serving):
            logger.info("another certificate is shown from now on")
        is_told = self._tell(held)
        if is_told and any(one.trusted_at is None for one in held.authorities):
            held = self._agree(lambda found: told(found, now=self._clock()))
        self._held, self.is_told = held, is_told

    def _due(self, held: Certificates) -> Certificates:
        return next_certificates(held, self._hosts, terms=self._terms, now=self._clock())

    def _agree(self, change: Callable[[Certificates], Certificates]) -> Certificates:
        """Change the Secret, only if nobody has meanwhile; gives what stands in it."""
        for _ in range(SWAPS):
            try:
                found = self._api.get(f"{self._path}/{SECRET_NAME}")
            except ObjectAbsent:
                first = self._held or self._first()
                try:
                    self._api.create(self._path, _secret(first))
                except ObjectConflict:
                    continue  # another replica was first
                return first
            held = _read(found)
            wanted = change(held) if held else self._held or self._first()
            if wanted == held:
                return wanted
            version = {"resourceVersion": found["metadata"]["resourceVersion"]}
            try:
                self._api.merge(
                    f"{self._path}/{SECRET_NAME}",
                    {"metadata": version, "data": _secret(wanted)["data"]},
                )
            except ObjectConflict:
                continue
            return wanted
        raise ClusterError(f"The Secret {SECRET_NAME} changes faster than it can be written.")

    def _first(self) -> Certificates:
        return first_certificates(self._hosts, terms=self._terms, now=self._clock())

    def _tell(self, held: Certificates) -> bool:
        """Have the webhooks trust every authority; whether they do."""
        bundle = base64.b64encode(held.bundle).decode()
        is_told = True
        for path, wanted in configurations(url=self._url, bundle=bundle).items():
            try:
                found: Object | None = self._api.get(path)
            except ObjectAbsent:
                found = None
            if self._url:
                if found is None or not _is_like(found, wanted):
                    self._api.apply(path, wanted, manager=MANAGER)
            elif found is None:
                logger.warning("%s is not there yet: apply deploy/admission/webhooks.yaml", path)
                is_told = False
            elif not trusts(found, bundle=bundle):
                self._api.apply(path, bundle_patch(found, bundle=bundle), manager=MANAGER)
        return is_told


def _is_like(found: Object, wanted: Object) -> bool:
    """Does what stands there say all that is wanted, whatever the API server has added?"""
    hooks = {one["name"]: one for one in found.get("webhooks") or []}
    return len(hooks) == len(wanted["webhooks"]) and all(
        hooks.get(one["name"], {}).get(key) == said
        for one in wanted["webhooks"]
        for key, said in one.items()
    )


def _secret(held: Certificates) -> Object:
    authorities = [
        {
            "certificate": one.pair.certificate.decode(),
            "key": one.pair.key.decode(),
            "trustedAt": one.trusted_at.isoformat() if one.trusted_at else None,
        }
        for one in held.authorities
    ]
    content = {
        "tls.crt": held.serving.certificate,
        "tls.key": held.serving.key,
        "ca.crt": held.bundle,
        "authorities.json": json.dumps(authorities).encode(),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": SECRET_NAME, "labels": {"app.kubernetes.io/part-of": "clearance"}},
        "data": {name: base64.b64encode(one).decode() for name, one in content.items()},
    }


def _read(found: Object) -> Certificates | None:
    """What stands in the Secret; None when it is empty, none of ours, or damaged."""
    if not found.get("data"):
        return None  # a chart makes it, so that nobody here needs to be let make any
    try:
        data = {name: base64.b64decode(one) for name, one in found["data"].items()}
        authorities = tuple(
            Authority(
                Pair(one["certificate"].encode(), one["key"].encode()),
                dt.datetime.fromisoformat(one["trustedAt"]) if one["trustedAt"] else None,
            )
            for one in json.loads(data["authorities.json"])
        )
        held = Certificates(authorities, Pair(data["tls.crt"], data["tls.key"]))
        for pair in (held.serving, *(one.pair for one in authorities)):
            assert pair.parsed
    except (KeyError, ValueError, TypeError, AttributeError):
        logger.error("the Secret %s cannot be read; it is written anew", SECRET_NAME)
        return None
    return held if authorities else None
