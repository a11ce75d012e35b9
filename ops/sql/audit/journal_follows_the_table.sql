-- I3: journal rows that are no row of the lifecycle's table, or do not begin where the row before them ended.
SELECT payment, operation, at,
       format('row %%s goes from %%s by %%s to %%s', sequence, coalesce(from_state, 'nothing'), event, to_state)
       || CASE WHEN before IS DISTINCT FROM from_state THEN format(', after a row that ended in %%s', coalesce(before, 'nothing'))
               ELSE '' END AS detail
FROM (SELECT *, lag(to_state) OVER (PARTITION BY payment ORDER BY sequence) AS before
      FROM transitions
      WHERE %(payments)s::text[] IS NULL OR payment = ANY (%(payments)s)) AS journal
WHERE before IS DISTINCT FROM from_state
   OR (event = 'created') <> (from_state IS NULL)
   OR concat_ws(' ', coalesce(from_state, 'pending'), event, to_state) <> ALL (%(table)s::text[])
ORDER BY at DESC
LIMIT %(limit)s
