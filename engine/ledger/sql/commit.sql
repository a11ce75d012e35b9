-- Everything a worker's actors want to write; rows come back only for what was not written (0002_commit.sql).
SELECT payment_id, verdict
FROM ledger_commit(%(fences)s::json, %(opened)s::json, %(changed)s::json, %(operations)s::json, %(answered)s::json,
                   %(entries)s::json)
