SELECT count(*) FROM operations WHERE settled_at IS NULL
