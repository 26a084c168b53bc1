"""Goals, their parts, and the causal explorer."""

from django.urls import URLPattern, path

from goals.views import goal_changes, goal_detail, goal_form, goal_list, trace

urlpatterns: list[URLPattern] = [
    path("goals", goal_list.goal_list, name="goal_list"),
    path("goals/new", goal_form.goal_new, name="goal_new"),
    path("goals/new/draft", goal_form.goal_draft, name="goal_draft"),
    path("goals/<goal:reference>/edit", goal_form.goal_edit, name="goal_edit"),
    path("goals/<goal:reference>", goal_detail.goal_detail, name="goal_detail"),
    path("goals/<goal:reference>/steer", goal_detail.goal_steer, name="goal_steer"),
    path("goals/<goal:reference>/ledger", goal_detail.goal_ledger, name="goal_ledger"),
    path("goals/<goal:reference>/attempts", goal_detail.goal_attempts, name="goal_attempts"),
    path("goals/<goal:reference>/decisions", goal_detail.goal_decisions, name="goal_decisions"),
    path("goals/<goal:reference>/changes", goal_changes.goal_changes, name="goal_changes"),
    path("goals/<goal:reference>/lineage", goal_detail.goal_lineage, name="goal_lineage"),
    path("goals/<goal:reference>/journal", goal_detail.goal_journal, name="goal_journal"),
    path("goals/<goal:reference>/trace", trace.goal_trace, name="goal_trace"),
    path("goals/<goal:reference>/trace/<span:span_id>", trace.goal_trace, name="goal_span"),
    path(
        "goals/<goal:reference>/trace/<span:span_id>/effects",
        trace.goal_effects,
        name="goal_effects",
    ),
    path("entries/<uuid:uid>", goal_detail.entry_detail, name="entry_detail"),
    path("spans/<span:span_id>", trace.span_detail, name="span_detail"),
]
