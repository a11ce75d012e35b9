"""The machine: accept, one writer per payment, a ledger that never forgets."""
