"""Encryption of cards and secrets, and keyed fingerprints of payloads (I9).

Reading order: encryption (sealing and opening under a master key), fingerprint (HMACs that compare payloads without
keeping them).

Keys come in by parameter; ledger/key_holder.py checks that they belong to the installation.

Never imports a store or the network, and of the engine only domain and the root.
"""
