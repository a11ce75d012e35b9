SELECT asked ->> 0, asked ->> 1, response_status, response_body
FROM json_array_elements($1::json) AS asked
CROSS JOIN LATERAL (
    SELECT response_status, response_body
    FROM idempotency_keys
    WHERE key = asked ->> 0 AND request_path = asked ->> 1
    LIMIT 1  -- It keeps this an index look-up per key, whatever the planner believed of a table that was empty at first.
) AS kept
