-- What this user may not do that edges, workers and dispatchers do: one row a table, with the rights that are missing.
WITH needed (name, rights) AS (VALUES
    ('installation', '{SELECT,UPDATE}'::text[]),
    ('partitions', '{SELECT,UPDATE}'),
    ('merchants', '{SELECT,UPDATE}'),  -- UPDATE to lock a row
    ('api_keys', '{SELECT}'),
    ('audit', '{SELECT,INSERT,UPDATE}'),
    ('payments', '{SELECT,INSERT,UPDATE}'),
    ('operations', '{SELECT,INSERT,UPDATE}'),
    ('transitions', '{SELECT,INSERT}'),
    ('outbox', '{SELECT,INSERT}'),
    ('fan_out', '{SELECT,UPDATE}'),
    ('webhook_endpoints', '{SELECT,INSERT,UPDATE}'),
    ('webhook_secrets', '{SELECT,INSERT,UPDATE,DELETE}'),
    ('deliveries', '{SELECT,INSERT,UPDATE}'),
    ('delivery_attempts', '{SELECT,INSERT}'),
    ('stored_answers', '{SELECT,INSERT}'),
    ('master_keys', '{SELECT,INSERT,UPDATE}'),
    ('key_holders', '{SELECT,INSERT,UPDATE,DELETE}'),
    ('outbox_id_seq', '{SELECT}')  -- what mark_events reads
)
SELECT n.name, array_agg(r.name) AS rights
FROM needed n JOIN pg_class c ON c.relname = n.name AND c.relnamespace = 'public'::regnamespace
    CROSS JOIN unnest(n.rights) AS r (name)
WHERE NOT has_table_privilege(c.oid, r.name)
GROUP BY n.name
ORDER BY n.name
