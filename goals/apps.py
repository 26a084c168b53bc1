"""Django's registration of the app; acts on what governance decides."""

from django.apps import AppConfig


class GoalsConfig(AppConfig):
    name = "goals"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from agents.signals import conduct_asked  # noqa: PLC0415 - as the others
        from goals import receivers  # noqa: PLC0415 - needs loaded models
        from governance import signals  # noqa: PLC0415 - needs loaded models

        for signal, receiver in (
            (signals.approval_decided, receivers.apply_answer),
            (signals.answer_checked, receivers.check_answer),
            (signals.approval_touched, receivers.tell_touched),
            (signals.stakes_asked, receivers.tell_stakes),
            (signals.spend_asked, receivers.tell_spend),
            (conduct_asked, receivers.tell_conduct),
        ):
            signal.connect(receiver, dispatch_uid=f"goals.{receiver.__name__}")
