-- What the card holder shall read on the statement, as the client said it.
ALTER TABLE payments ADD COLUMN statement_descriptor text CHECK (length(statement_descriptor) BETWEEN 1 AND 22);

-- The group commit as 0012_fence_token.sql left it, but that a new receipt is written by the names of the columns: a column
-- of what never changes needs no change of the function from now on.
DO $$
DECLARE
    before text := pg_get_functiondef('ledger_commit'::regproc);
    first  integer := strpos(before, 'INSERT INTO payments (');
    last   integer := strpos(before, 'FROM json_populate_recordset(NULL::payments, ledger_commit.opened) AS r');
BEGIN
    IF first = 0 OR last < first OR before NOT LIKE '%f.token = held.token%' THEN
        RAISE EXCEPTION 'the function ledger_commit is not as 0012_fence_token.sql left it';
    END IF;
    EXECUTE left(before, first - 1) || E'INSERT INTO payments\n        SELECT r.*\n        ' || substr(before, last);
END
$$;
