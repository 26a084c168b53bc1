-- Spans. The sorting key names the owner first, so that no attempt can replace another's span; the
-- version falls with time, so that of two spans with one key the first one stored stays.
CREATE TABLE IF NOT EXISTS spans
(
    namespace LowCardinality(String),
    goal_uid String,
    attempt_uid String,
    trace_id String,
    span_id String,
    parent_span_id String,
    agent LowCardinality(String),
    task LowCardinality(String),
    name String,
    kind Int32,
    trace_state String,
    start_at DateTime64(9, 'UTC'),
    end_at DateTime64(9, 'UTC'),
    status_code Int32,
    status_message String,
    attributes Map(LowCardinality(String), String),
    -- What each attribute was, in the order of the map: 0 string, 1 int, 2 double, 3 bool, 4 array,
    -- 5 key-value list, 6 bytes, 7 empty. 4 to 6 are kept as base64 of their protobuf form.
    attribute_types Array(UInt8),
    resource Map(LowCardinality(String), String),
    scope_name LowCardinality(String),
    scope_version LowCardinality(String),
    events Array(String),
    links Array(String),
    version UInt64,
    parent_observation String MATERIALIZED lower(attributes['action.parent_observation']),
    confidence Nullable(Float64) MATERIALIZED toFloat64OrNull(attributes['action.confidence']),
    observation_metric LowCardinality(String) MATERIALIZED attributes['observation.metric'],
    observation_aggregate LowCardinality(String) MATERIALIZED attributes['observation.aggregate'],
    observation_selector String MATERIALIZED attributes['observation.selector'],
    observation_value Nullable(Float64) MATERIALIZED toFloat64OrNull(attributes['observation.value']),
    observation_unit LowCardinality(String) MATERIALIZED attributes['observation.unit'],
    observation_samples UInt64 MATERIALIZED toUInt64(toFloat64OrZero(attributes['observation.samples'])),
    is_observation Bool MATERIALIZED mapContains(attributes, 'observation.metric') OR mapContains(attributes, 'observation.name'),
    change_target String MATERIALIZED attributes['change.target'],
    change_from String MATERIALIZED attributes['change.from'],
    change_to String MATERIALIZED attributes['change.to'],
    model_digest String MATERIALIZED attributes['model.digest'],
    model LowCardinality(String) MATERIALIZED multiIf(
        attributes['gen_ai.request.model'] != '', attributes['gen_ai.request.model'],
        attributes['gen_ai.response.model'] != '', attributes['gen_ai.response.model'],
        attributes['llm.model_name'] != '', attributes['llm.model_name'],
        attributes['llm.request.model']),
    input_tokens UInt64 MATERIALIZED toUInt64(toFloat64OrZero(multiIf(
        mapContains(attributes, 'gen_ai.usage.input_tokens'), attributes['gen_ai.usage.input_tokens'],
        mapContains(attributes, 'gen_ai.usage.prompt_tokens'), attributes['gen_ai.usage.prompt_tokens'],
        mapContains(attributes, 'llm.token_count.prompt'), attributes['llm.token_count.prompt'],
        attributes['llm.usage.prompt_tokens']))),
    output_tokens UInt64 MATERIALIZED toUInt64(toFloat64OrZero(multiIf(
        mapContains(attributes, 'gen_ai.usage.output_tokens'), attributes['gen_ai.usage.output_tokens'],
        mapContains(attributes, 'gen_ai.usage.completion_tokens'), attributes['gen_ai.usage.completion_tokens'],
        mapContains(attributes, 'llm.token_count.completion'), attributes['llm.token_count.completion'],
        attributes['llm.usage.completion_tokens']))),
    INDEX span_id_bloom span_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX parent_observation_bloom parent_observation TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX parent_span_id_bloom parent_span_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX change_target_bloom change_target TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (namespace, goal_uid, attempt_uid, trace_id, span_id)
-- An acknowledged span must survive a power cut: sync parts when inserted and when merged.
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

-- Where exports arrive, one row each. It keeps nothing: the view below turns each row into spans
-- within the same insert, so that an insert that returned has stored them.
CREATE TABLE IF NOT EXISTS span_intake
(
    namespace String,
    goal_uid String,
    agent String,
    task String,
    attempt_uid String,
    request Tuple(resource_spans Array(Tuple(
        resource Tuple(attributes Array(Tuple(key String, value Tuple(
            string_value Nullable(String), bool_value Nullable(Bool), int_value Nullable(Int64),
            double_value Nullable(Float64), array_value Nullable(String),
            kvlist_value Nullable(String), bytes_value Nullable(String))))),
        scope_spans Array(Tuple(
            scope Tuple(name String, version String),
            spans Array(Tuple(
                trace_id String, span_id String, trace_state String, parent_span_id String,
                name String, kind Int32,
                start_time_unix_nano UInt64, end_time_unix_nano UInt64,
                attributes Array(Tuple(key String, value Tuple(
                    string_value Nullable(String), bool_value Nullable(Bool), int_value Nullable(Int64),
                    double_value Nullable(Float64), array_value Nullable(String),
                    kvlist_value Nullable(String), bytes_value Nullable(String)))),
                events Array(String), links Array(String),
                status Tuple(message String, code Int32))))))))
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS span_intake_to_spans TO spans AS
SELECT
    namespace, goal_uid, attempt_uid,
    lower(hex(s.trace_id)) AS trace_id,
    lower(hex(s.span_id)) AS span_id,
    lower(hex(s.parent_span_id)) AS parent_span_id,
    agent, task, s.name AS name, s.kind AS kind, s.trace_state AS trace_state,
    fromUnixTimestamp64Nano(toInt64(s.start_time_unix_nano), 'UTC') AS start_at,
    fromUnixTimestamp64Nano(toInt64(s.end_time_unix_nano), 'UTC') AS end_at,
    s.status.code AS status_code, s.status.message AS status_message,
    CAST((s.attributes.key, arrayMap(v -> coalesce(
        v.string_value, toString(v.int_value), toString(v.double_value), toString(v.bool_value),
        base64Encode(coalesce(v.array_value, v.kvlist_value, v.bytes_value)), ''),
        s.attributes.value)), 'Map(LowCardinality(String), String)') AS attributes,
    arrayMap(v -> multiIf(
        isNotNull(v.string_value), 0, isNotNull(v.int_value), 1, isNotNull(v.double_value), 2,
        isNotNull(v.bool_value), 3, isNotNull(v.array_value), 4, isNotNull(v.kvlist_value), 5,
        isNotNull(v.bytes_value), 6, 7), s.attributes.value) AS attribute_types,
    resource, ss.scope.name AS scope_name, ss.scope.version AS scope_version,
    s.events AS events, s.links AS links,
    18446744073709551615 - toUInt64(toUnixTimestamp64Nano(now64(9))) - rowNumberInBlock() AS version
FROM
(
    SELECT
        namespace, goal_uid, agent, task, attempt_uid,
        CAST((rs.resource.attributes.key, arrayMap(v -> coalesce(
            v.string_value, toString(v.int_value), toString(v.double_value), toString(v.bool_value),
            base64Encode(coalesce(v.array_value, v.kvlist_value, v.bytes_value)), ''),
            rs.resource.attributes.value)), 'Map(LowCardinality(String), String)') AS resource,
        rs.scope_spans AS scope_spans
    FROM span_intake
    ARRAY JOIN request.resource_spans AS rs
)
ARRAY JOIN scope_spans AS ss
ARRAY JOIN ss.spans AS s;
