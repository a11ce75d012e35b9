"""The penstock command: one file a group of commands.

Reading order: main (the application and the processes), stack (up, status), audit, journal, payments, dead_letters,
holds, merchants, master_keys, partitions; operator and operator_assembly (the engine without a process around it).

Heavy modules are imported where a command needs them, so that --help is instant.

Of ops it imports assembly, audit, stack and the root; the tools (bench, chaos, demo, listen) are loaded by name.
"""
