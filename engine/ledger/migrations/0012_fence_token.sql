-- Who owns a partition is told by its epoch and by a random token. An epoch alone may be given twice: a Postgres that fails over to a
-- copy that had not yet received the last acquisition hands the same number out again, and both owners would pass the fence (I2).
ALTER TABLE partitions ADD COLUMN token text NOT NULL DEFAULT '';

-- The group commit of 0010_expiring.sql and 0011_found_by_key.sql, with the token in its fence.
DO $$
DECLARE
    before text := pg_get_functiondef('ledger_commit'::regproc);
    after  text := replace(replace(replace(before,
        'SELECT p.id, p.epoch FROM partitions p', 'SELECT p.id, p.epoch, p.token FROM partitions p'),
        'AS f (id integer, epoch bigint)', 'AS f (id integer, epoch bigint, token text)'),
        'ON f.id = held.id AND f.epoch = held.epoch', 'ON f.id = held.id AND f.epoch = held.epoch AND f.token = held.token');
BEGIN
    IF after NOT LIKE '%p.token FROM partitions p%' OR after NOT LIKE '%epoch bigint, token text)%'
       OR after NOT LIKE '%f.token = held.token%' THEN
        RAISE EXCEPTION 'the function ledger_commit is not as 0011_found_by_key.sql left it';
    END IF;
    EXECUTE after;
END
$$;
