"""The audit: do the invariants hold in the ledger, in Redis, and between ledger and bank?

Reading order: invariant (the list), auditor (one look), snapshot and breach, keyspace and streams (Redis), clocks,
books and reconcile (ledger against bank), chain, anchor and verification (the journal), holds, backlog, watch, report.

Changes nothing, except holds, which releases what a person names. Of ops it imports the root.
"""
