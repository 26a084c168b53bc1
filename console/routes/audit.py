"""The journal, its verification, evidence packs, and the decisions the journal records."""

from django.urls import URLPattern, path

from goals.views import evidence
from governance.views import audit, journal

urlpatterns: list[URLPattern] = [
    path("audit", audit.audit, name="audit"),
    path("audit/names", audit.audit_suggestions, name="audit_suggestions"),
    path("audit/check", audit.audit_check, name="audit_check"),
    path("audit/verify", audit.audit_verify, name="audit_verify"),
    path("audit/packs", evidence.pack_list, name="audit_packs"),
    path("audit/packs/range", evidence.range_pack_make, name="range_pack_make"),
    path("audit/packs/<goal:reference>", evidence.pack_make, name="pack_make"),
    path("journal", audit.audit, name="record_list"),
    path("journal/<int:seq>", journal.record_detail, name="record_detail"),
    path("decisions/<uuid:uid>", journal.decision_detail, name="decision_detail"),
    path("decisions/<uuid:uid>/input", journal.decision_input, name="decision_input"),
]
