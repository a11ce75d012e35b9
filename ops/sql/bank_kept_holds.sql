SELECT key, response_body::json ->> 'authorization_id'
FROM idempotency_keys
WHERE key = ANY (%(keys)s) AND request_path = '/api/v1/authorizations'
