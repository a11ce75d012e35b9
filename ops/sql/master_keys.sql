-- The installation's master keys, and which of them seals.
SELECT m.id, m.first_seen_at, m.sealed_from, m.sealed_until, m.id = i.sealing_key AS seals
FROM master_keys m, installation i
ORDER BY m.first_seen_at, m.id
