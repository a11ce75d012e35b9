"""The process that owns partitions and runs their payments.

Reading order: worker (its loops), lease_keeper and assignment (which partitions), partition_consumer (one owned
partition), stream_reader, reclaimer and scheduler (where work comes from), actor (one payment's mailbox),
payment_aggregate and pending_entries (what an actor knows and holds), operation_runner (commit, call, commit),
bank_caller, context, orphans.

Never imports gateway or webhooks: the three programs know nothing of each other.
"""
