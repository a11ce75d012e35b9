"""Running Penstock: the only folder that knows all the others.

Packages: assembly (what each process is made of, and its settings), cli (the penstock command), audit (do the
invariants hold), stack (the local stack and its stores), and the tools bench, chaos, demo and listen.

In the root lies what all of them use: errors and terminal (what a person reads), store_url, statement (sql/).

Nobody outside of ops imports it.
"""
