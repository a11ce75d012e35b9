-- Whether this database was migrated.
SELECT to_regclass('api_keys') IS NOT NULL AS exist;
