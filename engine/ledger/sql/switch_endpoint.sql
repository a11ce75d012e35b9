-- Enable, disable or delete an endpoint. One that is enabled again has not failed yet.
UPDATE webhook_endpoints SET
    status = %(status)s::text,
    disabled_reason = CASE WHEN %(status)s::text = 'disabled' THEN 'merchant' END,
    disabled_at = CASE WHEN %(status)s::text = 'disabled' THEN clock_timestamp() END,
    failing_since = NULL, failure_counted_at = NULL, failures_counted = 0,
    updated_at = clock_timestamp()
WHERE id = %(id)s
