-- I10: what an operator asked for, and nobody did or refused.
SELECT payment, operation, at, format('act %%s, %%s of %%s by %%s, has no result', id, act, subject, actor) AS detail
FROM audit
WHERE result IS NULL AND act IN ('retry', 'resolve', 'correct', 'hold.release') AND at < now() - make_interval(secs => %(grace_s)s)
ORDER BY at DESC
LIMIT %(limit)s
