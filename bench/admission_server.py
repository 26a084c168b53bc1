"""Admission without a cluster, for its benchmark: a real database, spool, sandbox and TLS.

Run as `python -m bench.admission_server PORT`; it serves until its input ends.
"""

import datetime as dt
import os
import sys
import threading
from pathlib import Path

import django
from django.core.management import call_command

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
django.setup()

from django.conf import settings  # noqa: E402

from agents.admission.app import AdmissionApp  # noqa: E402  needs loaded models
from agents.admission.certificates import Terms, first_certificates  # noqa: E402
from agents.admission.draining import Drain  # noqa: E402
from agents.admission.keeping import Shown  # noqa: E402
from agents.admission.program import admission_engine, warm_up  # noqa: E402
from agents.admission.server import AdmissionServer  # noqa: E402
from agents.admission.snapshot import Policies  # noqa: E402
from agents.admission.spool import Spool  # noqa: E402
from governance.services.bundles import ensure_starter_bundle  # noqa: E402

WARMED_AT_ONCE = 4


def main(port: int) -> None:
    """Serve."""
    call_command("migrate", verbosity=0)
    ensure_starter_bundle(identity="https://clearance.bench/bootstrap")
    engine = admission_engine(settings.POLICY_URL)
    policies = Policies(loaded=lambda found: warm_up(engine, found, times=WARMED_AT_ONCE))
    spool = Spool(Path(settings.CLEARANCE_DATA) / "admission")
    spool.open()
    app = AdmissionApp(policies, engine, spool, own_users=frozenset)
    shown = Shown()
    now = dt.datetime.now(dt.UTC)
    shown.show(first_certificates(["127.0.0.1"], terms=Terms(), now=now).serving)
    stop = threading.Event()
    for task in (policies.run, spool.run, Drain(spool).run):
        threading.Thread(target=task, args=[stop], daemon=True).start()
    server = AdmissionServer(app, shown, host="127.0.0.1", port=port)

    def end_with_input() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=end_with_input, daemon=True).start()
    server.run()
    stop.set()
    engine.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
