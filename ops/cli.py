"""The penstock command."""


def main() -> None:
    """Enter here."""
