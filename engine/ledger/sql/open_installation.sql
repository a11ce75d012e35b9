-- Makes a migrated database an installation, once: its id and its partitions are fixed from here on.
WITH opened AS (
    INSERT INTO installation (id, partitions)
    SELECT %(id)s, %(partitions)s
    WHERE NOT EXISTS (SELECT FROM installation)
    RETURNING partitions
)
INSERT INTO partitions (id) SELECT generate_series(0, opened.partitions - 1) FROM opened
