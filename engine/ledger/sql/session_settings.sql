-- Settings of this session alone. Not options of the connection: poolers in front of Postgres refuse those.
SELECT set_config(name, value, false) FROM unnest(%(names)s::text[], %(values)s::text[]) AS given (name, value)
