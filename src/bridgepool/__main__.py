"""The `bridgepool` command; what it does is in `bridgepool.gateway.commands`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the entry point of the `bridgepool` script."""
    try:
        from bridgepool.gateway.commands import app

        app()
    except ModuleNotFoundError as error:  # from the imports here or in the command that was run
        if (error.name or "").startswith("bridgepool"):
            raise
        sys.exit(
            f"bridgepool: the command needs {error.name}, which is not installed: "
            "pip install 'bridgepool[gateway]'"
        )


if __name__ == "__main__":
    main()
