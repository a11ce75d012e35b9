-- What the clients wait for, by where it stands; a sale counts once.
SELECT count(*) FILTER (WHERE settled_at IS NOT NULL),
       count(*) FILTER (WHERE settled_at IS NULL AND status IN ('accepted', 'sent', 'succeeded')),
       count(*) FILTER (WHERE settled_at IS NULL AND status = 'in_doubt'),
       count(*) FILTER (WHERE settled_at IS NULL AND status = 'review')
FROM operations WHERE parent IS NULL
