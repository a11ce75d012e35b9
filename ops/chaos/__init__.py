"""The chaos campaign: load, a schedule of faults by seed, healing, and a check of what was promised.

Reading order: command (penstock chaos), campaign (one run), environment (the stack that is struck), schedule and
faults, load, purchase and history (what the clients saw), books and double_holds (ledger and bank), check, report.

Of ops it imports assembly, audit, bench, cli, stack and the root.
"""
