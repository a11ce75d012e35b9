"""Merchants and their API keys, as an operator administers them.

Reading order: merchants (create, disable; keys: issue, rotate, revoke).

Keys are stored as digests and compared in constant time; a secret is shown once. Each change leaves a row in the
audit trail, in the same statement.

Of the engine it imports the ledger and the root.
"""
