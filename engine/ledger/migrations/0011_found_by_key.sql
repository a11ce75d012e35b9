-- The commit finds what was answered by its id alone. `settled_at IS NULL` beside it invited the planner to go through the index of
-- what is unsettled instead, which it takes for nearly empty: of live rows it is, but each operation that ends leaves an entry there
-- until the next vacuum, and every commit read them all.
DO $$
DECLARE
    before text := pg_get_functiondef('ledger_commit'::regproc);
    after  text := replace(before, 'o.id = r.id AND o.settled_at IS NULL',
                                   'o.id = r.id AND coalesce(o.settled_at, ''infinity'') = ''infinity''');
BEGIN
    IF after = before THEN
        RAISE EXCEPTION 'the function ledger_commit is not as 0010_expiring.sql left it';
    END IF;
    EXECUTE after;
END
$$;
