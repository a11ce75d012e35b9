-- What became of acts, in the transaction of the commit that carried them out. An act is carried out once.
UPDATE audit a SET result = d.result, done_at = d.done_at
FROM unnest(%(ids)s::bigint[], %(results)s::text[], %(times)s::timestamptz[]) AS d (id, result, done_at)
WHERE a.id = d.id AND a.result IS NULL
