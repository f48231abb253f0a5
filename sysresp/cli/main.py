"""The typer application (placeholder until the command line lands)."""


def run() -> None:
    """Run the command line."""
