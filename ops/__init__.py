"""Running it: the only folder that knows all the others."""
