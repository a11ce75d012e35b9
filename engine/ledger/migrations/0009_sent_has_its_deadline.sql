-- No attempt without its deadline: a new owner must know how long to wait (I7). As first written, the comparison with a
-- deadline that was missing was neither true nor false, and a CHECK refuses only what is false.
ALTER TABLE operations
    DROP CONSTRAINT sent_has_its_deadline,
    ADD CONSTRAINT sent_has_its_deadline CHECK (
        status <> 'sent' OR (attempts > 0 AND send_by IS NOT NULL AND deadline IS NOT NULL AND deadline > send_by));
