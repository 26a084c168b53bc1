"""Django's registration of the app; journals what provenance reports."""

from django.apps import AppConfig


class GovernanceConfig(AppConfig):
    name = "governance"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from governance.receivers import journal_provenance  # noqa: PLC0415 - needs loaded models
        from lineage.signals import provenance_changed  # noqa: PLC0415 - needs loaded models

        provenance_changed.connect(journal_provenance, dispatch_uid="governance.journal")
