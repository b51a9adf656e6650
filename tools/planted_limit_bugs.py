"""Bugs of what clients may, as edits of our source.

As in `planted_bugs`; each names the tests that must catch it.
"""

from tools.planted_bugs import Bug
from tools.planted_remote_bugs import bug

_READER_TESTS = ("tests/gateway/limits/test_model_reader.py",)
_LIMITER_TESTS = ("tests/gateway/limits/test_limiter.py",)
_LEASE_TESTS = ("tests/gateway/sources/test_limit_leases.py",)
_SHARE_TESTS = (
    "tests/gateway/limits/test_share_ledger.py",
    "tests/gateway/limits/test_shares.py",
)
_LOST_TESTS = ("tests/gateway/limits/test_lost_shares.py",)
_DRAW_TESTS = (
    "tests/gateway/limits/test_budget_draws.py",
    "tests/gateway/limits/test_budget_sums.py",
)
_POOL_TESTS = ("tests/gateway/limits/test_share_pool.py",)
_REPORT_TESTS = ("tests/gateway/sources/test_limit_reports.py",)
_USE_TESTS = ("tests/gateway/proxy/test_client_use.py",)
_CHARGE_TESTS = ("tests/gateway/proxy/test_client_charges.py",)
_READER = "gateway/limits/_model_reader.py:ModelReader"
_NAMES = "gateway/limits/_model_reader.py:_checked_name"
_FORM_TESTS = ("tests/gateway/limits/test_form_reader.py",)
_FORM = "gateway/limits/_form_reader.py"
_POOL = "gateway/limits/_share_pool.py"
_USE = "gateway/proxy/_client_use.py"

LIMIT_BUGS: tuple[Bug, ...] = (
    bug(
        "a second model in a body is passed over", _READER_TESTS, _NAMES,
        "name in seen", "False",
    ),
    bug(
        "a model in another spelling is passed over", _READER_TESTS, _NAMES,
        "near in node.names", "False",
    ),
    bug(
        "a boundary inside of a part is passed over", _FORM_TESTS, f"{_FORM}:read_form",
        'data[end - 2 : end] != b"\\r\\n"', "False",
    ),
    bug(
        "a second model in a form is passed over", _FORM_TESTS, f"{_FORM}:read_form",
        "if len(models) > 1:", "if False:",
    ),
    bug(
        "what follows a form is passed over", _FORM_TESTS, f"{_FORM}:read_form",
        'rest in (b"--", b"--\\r\\n")', 'rest.startswith(b"--")',
    ),
    bug(
        "what follows the document is passed over", _READER_TESTS, f"{_READER}._expect_value",
        "not self._stack", "False",
    ),
    bug(
        "a budget begins again when the clock is set back", _LIMITER_TESTS,
        "gateway/limits/_budgets.py:Budget._turn", "now >= self._until",
        "period_start(self.period, now) != self._start",
    ),
    bug(
        "what a request used is not settled", _LIMITER_TESTS,
        "gateway/limits/_limiter.py:WholeScope.settle",
        "self.rates[name].take(used[name] - taken[name], now)", "pass",
    ),
    bug(
        "a smaller share counts before the gateway has it", _SHARE_TESTS,
        f"{_POOL}:SharePool.give", "max(holder.held, share)", "share",
    ),
    bug(
        "the share of a gateway that is gone is free at once", _SHARE_TESTS,
        f"{_POOL}:SharePool.turn", "now - holder.gone >= reserved", "True",
    ),
    bug(
        "what a killed gateway used is given to others", _SHARE_TESTS,
        f"{_POOL}:SharePool._forget", "self.lost.add(holder.held, gone)", "pass",
    ),
    bug(
        "a client that paused is refused while the control plane is away", _LEASE_TESTS,
        "gateway/limits/_leased.py:LeasedScope.lend_least", "part.share >= least", "True",
    ),
    bug(
        "a request that seems to cost nothing asks for no share", _SHARE_TESTS,
        "gateway/limits/_leased.py:_Part.want", "max(cost, _LEAST_COST * self.limit)", "cost",
    ),
    bug(
        "what was taken of a rate is given away", _SHARE_TESTS,
        "gateway/limits/_leased.py:LeasedScope.apply", "max(given.share, taken)", "given.share",
    ),
    bug(
        "what killed gateways used is given again after a start", _SHARE_TESTS,
        "gateway/limits/_lost_shares.py:LostShares.taken", "if missing:", "if False:",
    ),
    bug(
        "more comes back of what was lost than it was", _LOST_TESTS,
        "gateway/limits/_lost_shares.py:LostShares.remaining", " if now - at < RESERVED_FOR", "",
    ),
    bug(
        "what gateways that did not come back used is taken from each load that moves",
        _LOST_TESTS, "gateway/limits/_lost_shares.py:LostShares.taken",
        "self._unreported is None", "True",
    ),
    bug(
        "what was lost is taken from each gateway that gets a part of it", _LOST_TESTS,
        "gateway/limits/_lost_shares.py:LostShares.pass_on", "1 - taken / lost", "1.0",
    ),
    bug(
        "a request that is refused has the gateway report at once", _REPORT_TESTS,
        "gateway/sources/_limit_leases.py:LimitLeases._report_soon",
        "await trio.sleep_until(self._reported + _LEAST_INTERVAL)", "pass",
    ),
    bug(
        "a new client is refused since a report is under way without it", _REPORT_TESTS,
        "gateway/sources/_limit_leases.py:LimitLeases.prepare",
        "while any(scope.lacks_shares for scope in lacking) and await self._report_soon():",
        "if await self._report_soon():",
    ),
    bug(
        "a gateway reports its first limits only", _REPORT_TESTS,
        "gateway/sources/_limit_leases.py:LimitLeases._report",
        "range(0, len(asked), MAX_DEMANDS)", "range(1)",
    ),
    bug(
        "a gateway counts alone after an upgrade of the control plane", _REPORT_TESTS,
        "gateway/sources/_limit_leases.py:LimitLeases.note_session",
        "self._set_alone(False)", "pass",
    ),
    bug(
        "what was spent beyond a share is free with the next control plane", _SHARE_TESTS,
        f"{_POOL}:SharePool.note", "self.spent += max(0.0, -asked.held)", "pass",
    ),
    bug(
        "a control plane whose clock is set back gives a budget again", _SHARE_TESTS,
        f"{_POOL}:SharePool.turn", "if start > self.start", "if start != self.start",
    ),
    bug(
        "a report of a gateway breaks those of others",
        ("tests/gateway/control/test_gateway_service.py",),
        "gateway/control/_gateway_service.py:_is_sound", "abs(number) <= _MOST", "True",
    ),
    bug(
        "a share that is no number is taken", _LEASE_TESTS,
        "gateway/sources/_limit_leases.py:LimitLeases._ask",
        "if all(map(math.isfinite, (share.share, share.remaining, share.taken)))", "if True",
    ),
    bug(
        "a gateway can make up any number of limits", _SHARE_TESTS,
        "gateway/limits/_shares.py:ShareLedger._note",
        "len(self._pools) >= _MAX_POOLS", "False",
    ),
    bug(
        "a budget in a store forgets what was spent",
        ("tests/gateway/control/test_limit_shares.py",),
        "gateway/limits/_draws.py:Draw.take_from", "max(spent, self.seen)", "self.seen",
    ),
    bug(
        "a share of a budget is used on the next day", _SHARE_TESTS,
        "gateway/limits/_leased.py:LeasedScope._turn",
        "part.lend(_least(name, part.limit))", "pass",
    ),
    bug(
        "a gateway that has started serves a request of a budget that is spent", _LEASE_TESTS,
        "gateway/limits/_leased.py:LeasedScope.demands", "period=part.period", "period=0",
    ),
    bug(
        "what the last requests of a gateway used is not reported", _LEASE_TESTS,
        "gateway/sources/_limit_leases.py:LimitLeases.report_last",
        "await self._report(last=True)", "await trio.lowlevel.checkpoint()",
    ),
    bug(
        "a gateway that stops keeps its shares", _LEASE_TESTS,
        "gateway/sources/_limit_leases.py:LimitLeases.report_last", "last=True", "last=self._alone",
    ),
    bug(
        "more of a budget is given than was drawn", _SHARE_TESTS, f"{_POOL}:SharePool.give",
        "min(pool, self.drawn - self.spent) if self.stored else pool", "pool",
    ),
    bug(
        "a gateway keeps what a request did not use of a large estimate",
        ("tests/gateway/limits/test_large_estimates.py",),
        "gateway/limits/_leased.py:LeasedScope.settle",
        "min(part.share - difference, most)", "part.share - difference",
    ),
    bug(
        "what another control plane gave back is taken for a store that was restored",
        _DRAW_TESTS, f"{_POOL}:SharePool._draw",
        "(self.total or 0.0) if alone else 0.0", "self.total or 0.0",
    ),
    bug(
        "what is reported while a draw runs is not drawn", _DRAW_TESTS,
        "gateway/limits/_shares.py:ShareLedger.drew", "if self._short[pool_id]:", "if True:",
    ),
    bug(
        "a store that is away counts as back when nobody asks", _DRAW_TESTS,
        "gateway/limits/_shares.py:ShareLedger.draws", "list(islice(self._short, most))",
        "[one for one in islice(self._short, most) if self._pools[one].is_short(now)]",
    ),
    bug(
        "a gateway that notices midnight first has its first requests free", _POOL_TESTS,
        f"{_POOL}:SharePool.note", "if same or not is_new:", "if same:",
    ),
    bug(
        "what a gateway spent yesterday counts today with another control plane", _POOL_TESTS,
        f"{_POOL}:SharePool.note", "if same or not is_new:", "if True:",
    ),
    bug(
        "a share that a gateway brings from another control plane is drawn again", _DRAW_TESTS,
        f"{_POOL}:SharePool.note", "self.drawn += max(0.0, asked.held)", "pass",
    ),
    bug(
        "a store that has nothing left is asked with each report", _DRAW_TESTS,
        f"{_POOL}:SharePool._lacking", "asking and now >= self.draw_again", "asking",
    ),
    bug(
        "what is given back of a lowered limit is held", _DRAW_TESTS,
        f"{_POOL}:SharePool._lacking", "max(0.0, chunk - each.held)", "chunk - each.held",
    ),
    bug(
        "a gateway that is gone asks for shares", _POOL_TESTS,
        f"{_POOL}:SharePool.give",
        "for each in self.holders.values() if each.gone is None]",
        "for each in self.holders.values()]",
    ),
    bug(
        "what a killed gateway used is forgotten with the last gateway", _POOL_TESTS,
        "gateway/limits/_shares.py:ShareLedger.end", " and not pool.lost.remaining(now)", "",
    ),
    bug(
        "what gateways hold of a budget is taken for a spare", _SHARE_TESTS,
        f"{_POOL}:SharePool._lacking",
        "self.drawn - self.spent - self.held", "self.drawn - self.spent",
    ),
    bug(
        "what gateways hold is given back to the store", _SHARE_TESTS,
        f"{_POOL}:SharePool.give_back",
        "self.drawn - self.spent - self.held", "self.drawn - self.spent",
    ),
    bug(
        "a control plane that starts gives what gateways hold", _SHARE_TESTS,
        f"{_POOL}:SharePool.give", "if settling and not self.stored:", "if False:",
    ),
    bug(
        "a list shows models that the client may not use", _USE_TESTS,
        f"{_USE}:ClientUses._judge", "use.lists_models = not model", "pass",
    ),
    bug(
        "a body that was read stays in memory", _USE_TESTS, f"{_USE}:ClientUse._release",
        "self._read.release()", "pass",
    ),
    bug(
        "a body that was read stays in memory as long as its answer takes",
        ("tests/gateway/proxy/test_read_bodies.py",), f"{_USE}:ClientUse.note_response",
        "self._release()", "pass",
    ),
    bug(
        "a client that leaves while it waits for a share holds its body",
        ("tests/gateway/proxy/test_read_bodies.py",), f"{_USE}:ClientUses.admit",
        "            use.end(record)\n            raise", "            raise",
    ),
    bug(
        "cached tokens are charged like all others", _CHARGE_TESTS,
        f"{_USE}:ClientUses.costs_of_answer", ", *cached", "",
    ),
    bug(
        "any number of inputs of unknown length come at the same time", _CHARGE_TESTS,
        f"{_USE}:ClientUses._estimate", "_UNKNOWN_INPUT if has_body(headers) else 0.0", "0.0",
    ),
    bug(
        "a client is told to come back before there is room", _CHARGE_TESTS, f"{_USE}:exceeded",
        "max(1, math.ceil(found.retry_after))", "int(found.retry_after)",
    ),
    bug(
        "a provider that the client may not use stands in", _USE_TESTS,
        f"{_USE}:ClientUse.allow_provider",
        "self._permissions.allow_provider(name)", "True",
    ),
    bug(
        "a request whose client leaves before the answer is free",
        _CHARGE_TESTS, f"{_USE}:ClientUse._used",
        "record.sent and not record.upstream_status", "False",
    ),
    bug(
        "the first request of a client waits for a report without it",
        ("tests/gateway/sources/test_limit_leases.py",),
        "gateway/limits/_leased.py:LeasedScope.is_to_be_reported", "self.lacks_shares", "False",
    ),
)  # fmt: skip
