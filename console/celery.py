"""The Celery application: a doorbell and a clock; the database is the truth."""

import os

from celery import Celery
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")

app = Celery("clearance")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

# A ring that cannot be heard is given up at once: the next resync makes up for it, and whoever
# rings has a person or a Goal waiting. Kombu's own default tries for six seconds.
app.conf.broker_transport_options = {
    **settings.CELERY_BROKER_TRANSPORT_OPTIONS,
    "max_retries": 0,
    "socket_connect_timeout": 2,
}

DAY_SECONDS = 24 * 3600.0
# A step reads some 50,000 records: a journal of a million is verified whole in twenty minutes.
VERIFY_SECONDS = 60.0

app.conf.beat_schedule = {
    "resync": {"task": "goals.resync", "schedule": 1.0, "options": {"expires": 5}},
    "expire approvals": {
        "task": "goals.expire_approvals",
        "schedule": 5.0,
        "options": {"expires": 15},
    },
    "checkpoint": {"task": "governance.checkpoint", "schedule": 30.0, "options": {"expires": 60}},
    "stop orphans": {"task": "agents.stop_orphans", "schedule": 30.0, "options": {"expires": 60}},
    "forget workloads": {
        "task": "agents.forget_workloads",
        "schedule": 600.0,
        "options": {"expires": 600},
    },
    "verify the journal": {
        "task": "governance.verify_journal",
        "schedule": VERIFY_SECONDS,
        "options": {"expires": VERIFY_SECONDS},
    },
    "rotate identity keys": {
        "task": "agents.rotate_identity_keys",
        "schedule": DAY_SECONDS,
        "options": {"expires": 3600},
    },
}
