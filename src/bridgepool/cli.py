"""The `bridgepool` command; what it does is in `bridgepool._commands`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the entry point of the `bridgepool` script."""
    try:
        from bridgepool._commands import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("bridgepool"):
            raise
        sys.exit(
            f"bridgepool: the command needs {error.name}, which is not installed: "
            "pip install 'bridgepool[gateway]'"
        )
    app()


if __name__ == "__main__":
    main()
