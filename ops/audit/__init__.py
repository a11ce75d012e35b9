"""The auditor: what DESIGN promises as numbered invariants, computed over ledger, Redis and bank. Changes nothing."""
