"""Entry point of the `sysresp` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from sysresp.cli.main import run  # noqa: PLC0415 - imported late: a fast path comes first

    run()


if __name__ == "__main__":
    main()
