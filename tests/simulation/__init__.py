"""The whole engine on a virtual clock: seeds decide what happens, a witness and a verdict say whether it was right.

Reading order: run (the command line), plan and faults (what happens), processes and shop, simulated_redis,
simulated_postgres, simulated_bank, simulated_network, witness, verdict; variants are engines broken on purpose.
"""
