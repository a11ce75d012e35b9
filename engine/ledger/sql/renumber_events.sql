-- New events get ids behind all that are taken or handled. Whoever writes events waits meanwhile: an id that is drawn beside this could
-- be drawn twice.
LOCK TABLE outbox IN SHARE ROW EXCLUSIVE MODE;
SELECT setval('outbox_id_seq', greatest(s.last_value, (SELECT max(o.id) FROM outbox o), (SELECT f.id FROM fan_out f)))
FROM outbox_id_seq s
