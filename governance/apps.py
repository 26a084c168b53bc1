"""Django's registration of the app; listens to provenance and to people signing in and out."""

from django.apps import AppConfig


class GovernanceConfig(AppConfig):
    name = "governance"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.contrib.auth.signals import (  # noqa: PLC0415 - needs loaded models
            user_logged_in,
            user_logged_out,
        )

        from governance.receivers import (  # noqa: PLC0415 - needs loaded models
            journal_provenance,
            note_sign_in,
            note_sign_out,
        )
        from lineage.signals import provenance_changed  # noqa: PLC0415 - needs loaded models

        provenance_changed.connect(journal_provenance, dispatch_uid="governance.journal")
        user_logged_in.connect(note_sign_in, dispatch_uid="governance.sign_in")
        user_logged_out.connect(note_sign_out, dispatch_uid="governance.sign_out")
