"""The mock bank: a far side of the wire to practise on, with every oddity of its public model kept."""
