"""The Celery application: a doorbell and a clock; the database is the truth."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")

app = Celery("clearance")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

app.conf.beat_schedule = {
    "resync": {"task": "goals.resync", "schedule": 1.0, "options": {"expires": 5}},
    "expire approvals": {
        "task": "goals.expire_approvals",
        "schedule": 5.0,
        "options": {"expires": 15},
    },
    "checkpoint": {"task": "governance.checkpoint", "schedule": 30.0, "options": {"expires": 60}},
}
