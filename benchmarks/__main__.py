"""`python -m benchmarks [PART ...]`: run the parts named, or all of `PARTS`, in turn."""

import importlib
import platform
import sys

import trio

from benchmarks.table import Row, format_table

PARTS = (
    *("core", "http", "metrics", "fairness", "remote", "resilience"),
    *("provider_keys", "client_limits", "usage", "data_plane", "websockets"),
)


def main(arguments: list[str]) -> int:
    """Run the parts and print one table for all of them."""
    unknown = [name for name in arguments if name not in PARTS]
    if unknown:
        print(f"unknown part {unknown[0]!r}; there are: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name in arguments or PARTS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"benchmarks.{name}").run()
    print(
        f"{platform.python_implementation()} {platform.python_version()}, Trio {trio.__version__}"
    )
    print(format_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
