-- How many operations have no answer yet, by what they wait for, and for how long the oldest doubt lasts.
SELECT count(*) FILTER (WHERE status IN ('accepted', 'sent')) AS open,
       count(*) FILTER (WHERE status = 'in_doubt') AS in_doubt,
       count(*) FILTER (WHERE status = 'review') AS review,
       coalesce(extract(epoch FROM clock_timestamp() - min(doubted_at)), 0)::float8 AS oldest_s
FROM operations
WHERE settled_at IS NULL
