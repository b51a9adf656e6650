"""What rules and limits of clients cost a request.

One gateway has four clients, which ask the same in turn: one without rules, one with rates, one
with rates and budgets of tokens and money, whose answers are read for their tokens, and one with a
rule on models, whose bodies are read.

Run it with `python -m benchmarks client_limits`.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.contenders import Starter
from benchmarks.load import Target, chat, cpu_in_turn
from benchmarks.table import Row, row
from bridgepool.gateway.commands._programs import client_row

_PROVIDER = """
allow_private = true

[[providers]]
name = "ai"
type = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
keys = ["sk-of-the-upstream"]
"""
_PRICES = '[[models]]\nmodel = "*"\ninput = 1\noutput = 1\n'
_MANY = 1_000_000_000
_RATES = f"requests_per_minute = {_MANY}\nmax_concurrent = 1000\n"
_CLIENTS = {
    "none": "",
    "rates": _RATES,
    "budgets": f"{_RATES}tokens_per_minute = {_MANY}\nmoney_per_day = {_MANY}\n",
    "models": 'models = ["m*"]\n',
}


def run() -> list[Row]:
    """Measure, and return the rows."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        starter = Starter(folder, stack)
        _, upstream = starter.start_module("upstream", core=0)
        clients = {client: client_row(client) for client in _CLIENTS}
        rows = "\n".join(f"{clients[name][0]}\n{rules}" for name, rules in _CLIENTS.items())
        (folder / "providers.toml").write_text(_PROVIDER.format(upstream=upstream) + rows)
        (folder / "prices.toml").write_text(_PRICES)
        pid, port = starter.start(
            *(sys.executable, "-m", "bridgepool", "gateway"),
            *("--providers", str(folder / "providers.toml")),
            *("--price-table", str(folder / "prices.toml")),
            *("--listen", "127.0.0.1:0", "--access-log", "none"),
        )
        target = Target("gateway", port, pid, "/ai")
        keys = [key.reveal() for _row, key in clients.values()]
        cpu = dict(zip(clients, cpu_in_turn((target, chat(key)) for key in keys), strict=True))
        return [
            row("CPU of a request of a client without rules", cpu["none"], "us"),
            *(
                row(
                    f"CPU of a request of a client with {what}", cpu[client], "us",
                    base=cpu["none"], to="without rules", target="<= 1.3 x", in_turn=True,
                )
                for client, what in (
                    ("rates", "rates"),
                    ("budgets", "rates and budgets"),
                    ("models", "a rule on models"),
                )
            ),
        ]  # fmt: skip
