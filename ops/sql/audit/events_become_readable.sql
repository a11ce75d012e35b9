-- I8: sessions that keep committed events from being read or carried on; each is a transaction that nobody ends.
SELECT NULL::text AS payment, NULL::text AS operation, h.since AS at,
       format('backend %%s (application %%s, account %%s, %%s) has a transaction open since %%s, and at least %%s committed events wait '
              'behind it', coalesce(h.pid::text, 'none'), coalesce(nullif(h.application, ''), 'without a name'), h.account,
              coalesce(h.state, 'in a state that this account may not see'), coalesce(h.since::text, 'an unknown time'), e.events)
           AS detail
FROM event_holders h
CROSS JOIN LATERAL (SELECT count(*) AS events FROM (SELECT FROM outbox o WHERE o.id > h.mark LIMIT 10000) AS n) AS e
WHERE (h.since IS NULL OR h.since < clock_timestamp() - make_interval(secs => %(grace_s)s)) AND e.events > 0
ORDER BY at DESC NULLS LAST
LIMIT %(limit)s
