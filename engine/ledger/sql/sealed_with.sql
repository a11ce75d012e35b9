-- What is sealed now, and with which master key: cards that the bank may be asked with, secrets that sign, answers kept for ever.
SELECT 'card' AS what, sealing_key_of(sealed) AS key, count(*) AS sealed
FROM operations WHERE settled_at IS NULL AND sealed IS NOT NULL GROUP BY 2
UNION ALL
SELECT 'secret', sealing_key_of(sealed), count(*)
FROM webhook_secrets WHERE expires_at IS NULL OR expires_at > clock_timestamp() GROUP BY 2
UNION ALL
SELECT 'answer', sealing_key_of(sealed), count(*) FROM stored_answers GROUP BY 2
