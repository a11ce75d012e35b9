INSERT INTO idempotency_keys (key, request_path, response_status, response_body)
SELECT answered ->> 0, answered ->> 1, (answered ->> 2)::integer, answered ->> 3
FROM json_array_elements($1::json) AS answered
ON CONFLICT DO NOTHING
