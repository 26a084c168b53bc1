"""The project and the shell: settings, URLs, the one API, accounts, pages, the supervisor."""

from console.celery import app as celery_app

__all__ = ["celery_app"]
