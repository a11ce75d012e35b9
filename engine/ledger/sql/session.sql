-- Whatever the server, the database, the role or an environment variable say: what our statements are written for. One row:
-- whether the user may look into the schema where our tables belong, the encoding of the database, and the schemas that have
-- such tables.
SELECT
    set_config('search_path', 'public, pg_temp', false),
    set_config('client_encoding', 'UTF8', false),
    set_config('DateStyle', 'ISO, MDY', false),
    set_config('IntervalStyle', 'postgres', false),
    set_config('TimeZone', 'UTC', false),
    set_config('bytea_output', 'hex', false),
    set_config('standard_conforming_strings', 'on', false),
    set_config('transform_null_equals', 'off', false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('default_transaction_deferrable', 'off', false),
    (SELECT has_schema_privilege(n.oid, 'USAGE') FROM pg_namespace n WHERE n.nspname = 'public') AS may_look,
    (SELECT pg_encoding_to_char(d.encoding) FROM pg_database d WHERE d.datname = current_database()) AS encoding,
    (SELECT array_agg(n.nspname::text ORDER BY n.nspname)
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relname = 'schema_migrations' AND c.relkind = 'r' AND n.nspname !~ '^pg_') AS schemas
