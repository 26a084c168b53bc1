"""What governance does at news from its right."""

from typing import Any

from governance.services.journal import append_record


def journal_provenance(sender: object, **news: Any) -> None:
    """Write the journal record of a provenance change, in the sender's transaction."""
    news.pop("signal", None)
    append_record(**news)
