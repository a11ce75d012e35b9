"""The local stack: real stores and all processes on one machine, for `penstock up`, the tools and the tests.

Reading order: local_stack (what runs, in which order), supervisor (keeps processes running), data_dir, embedded and
daemon (Postgres and Redis without an installation), stores, ephemeral_stack (a stack of a tool's own), shutdown,
watchdog.

Of ops it imports assembly and the root.
"""
