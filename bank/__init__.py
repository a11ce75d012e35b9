"""Our end of the wire to banks, and the bank simulator to practise on."""
