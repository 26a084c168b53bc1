"""Django's registration of the app; loads the Celery application that tasks are sent through."""

from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    name = "console"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        import console.celery  # noqa: PLC0415 - makes it Celery's current application
        import console.checks  # noqa: F401, PLC0415 - registers the system checks
