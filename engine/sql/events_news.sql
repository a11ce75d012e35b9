-- Merchants with events that became readable since the last look; and how far this look reaches. The first look has no last one.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
       ARRAY(SELECT DISTINCT o.merchant FROM outbox o
             WHERE o.xid >= %(since)s::bigint::text::xid8 AND o.xid < pg_snapshot_xmin(pg_current_snapshot())) AS merchants
