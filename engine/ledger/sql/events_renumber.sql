-- Whether new events would get ids at or below those that are taken or handled: a restore that copies tables and leaves sequences out,
-- as logical replication does, would have them refused or skipped.
SELECT s.last_value - (NOT s.is_called)::integer < greatest((SELECT max(o.id) FROM outbox o), (SELECT f.id FROM fan_out f))
FROM outbox_id_seq s
