-- The keys that the bank has kept an answer under, and the hold that each answer names.
SELECT key, CASE WHEN request_path = '/api/v1/authorizations' THEN response_body::json ->> 'authorization_id' END,
       created_at AT TIME ZONE 'UTC'
FROM idempotency_keys
