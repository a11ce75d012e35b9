SELECT id FROM operations WHERE settled_at IS NULL
