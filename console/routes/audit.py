"""The journal and the decisions it records."""

from django.urls import URLPattern, path

from governance.views import journal

urlpatterns: list[URLPattern] = [
    path("journal", journal.record_list, name="record_list"),
    path("journal/<int:seq>", journal.record_detail, name="record_detail"),
    path("decisions/<uuid:uid>", journal.decision_detail, name="decision_detail"),
    path("decisions/<uuid:uid>/input", journal.decision_input, name="decision_input"),
]
