"""Django's registration of the app; acts on what governance decides."""

from django.apps import AppConfig


class GoalsConfig(AppConfig):
    name = "goals"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from goals.receivers import apply_answer, tell_spend  # noqa: PLC0415 - needs loaded models
        from governance.signals import (  # noqa: PLC0415 - needs loaded models
            approval_decided,
            spend_asked,
        )

        approval_decided.connect(apply_answer, dispatch_uid="goals.apply_answer")
        spend_asked.connect(tell_spend, dispatch_uid="goals.tell_spend")
