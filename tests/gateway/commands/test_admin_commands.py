"""`bridgepool providers`, `keys`, `gateways`, `audit` on a local store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.commands.commands import Shell

KEY = "sk-first-0123456789abcdef-wxyz"
OTHER = "sk-other-0123456789abcdef-qrst"


def add_openai(shell: Shell, *more: str, stdin: str = KEY + "\n") -> None:
    base = ("--base-url", "https://api.openai.com/v1")
    shell.good("providers", "add", "openai", "--type", "openai", *base, *more, stdin=stdin)


def add_openai_with_key(shell: Shell) -> None:
    add_openai(shell, "--keys-stdin")


def test_a_provider_is_added_shown_changed_and_removed(shell: Shell) -> None:
    add_openai_with_key(shell)
    [listed] = shell.good("providers", "list", "--json").json()
    assert (listed["name"], listed["enabled"], listed["revision"]) == ("openai", True, 1)
    assert "openai" in shell.good("providers", "list").out
    for command in ("disable", "remove"):
        done = shell.run("providers", command, "openai")
        assert (done.status, "no enabled provider would be left" in done.err) == (2, True)
    assert "added" not in shell.good("providers", "disable", "openai", "--allow-empty").out
    assert shell.good("providers", "show", "openai", "--json").json()["enabled"] is False
    shell.good("providers", "enable", "openai")
    shell.good("providers", "update", "openai", "--new-name", "main", "--base-url", "https://x.org")
    shown = shell.good("providers", "show", "main", "--json").json()
    assert (shown["base_url"], shown["id"]) == ("https://x.org", listed["id"])
    shell.good("providers", "remove", "main", "--allow-empty")
    assert shell.good("providers", "list", "--json").json() == []
    assert shell.run("providers", "show", "main").status == 2


def test_lists_and_numbers_of_a_provider_are_set_changed_and_emptied(shell: Shell) -> None:
    add_openai(shell, "--retries", "2", "--fallback", "other", "--fallback", "third", stdin="")
    shown = shell.good("providers", "show", "openai", "--json").json()
    assert (shown["retries"], shown["fallback"]) == (2, ["other", "third"])
    update = ("providers", "update", "openai")
    shell.good(*update, "--no-fallback", "--retry-budget", "0.5", "--retry-on", "503")
    shown = shell.good("providers", "show", "openai", "--json").json()
    assert (shown["fallback"], shown["retry_budget"], shown["retry_on"]) == ([], 0.5, ["503"])
    assert shown["retries"] == 2
    done = shell.run(*update, "--retries", "11")
    assert (done.status, "retries: is not from 0 to 10" in done.err) == (2, True)


def test_keys_are_read_from_standard_input_and_shown_masked(shell: Shell) -> None:
    add_openai(shell, "--keys-stdin", stdin=f"{KEY}\n{OTHER}\n")
    done = shell.good("providers", "show", "openai")
    assert "…wxyz" in done.out
    assert KEY not in done.out
    assert OTHER not in done.out


def test_a_key_is_rotated_while_the_old_one_stays_behind(shell: Shell) -> None:
    add_openai_with_key(shell)
    [old] = shell.good("providers", "show", "openai", "--json").json()["keys"]
    rotate = ("providers", "update", "openai", "--keys-stdin", "--keep-key", old["id"])
    shell.good(*rotate, stdin=OTHER)
    new, kept = shell.good("providers", "show", "openai", "--json").json()["keys"]
    assert (new["hint"], kept) == ("…qrst", old)
    shell.good("providers", "update", "openai", "--keep-key", new["id"])
    assert shell.good("providers", "show", "openai", "--json").json()["keys"] == [new]
    shell.good("providers", "update", "openai", "--no-keys")
    assert shell.good("providers", "show", "openai", "--json").json()["keys"] == []


def test_keys_and_headers_come_from_the_environment(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    monkeypatch.setenv("THE_TEAM", "team-secret")
    add_openai(shell, "--keys-from-env", "THE_KEY", "--header-from-env", "X-Team=THE_TEAM")
    shown = shell.good("providers", "show", "openai", "--json").json()
    assert shown["keys"][0]["hint"] == "…wxyz"
    assert shown["headers"] == {"x-team": "***"}
    shell.good(
        *("providers", "update", "openai", "--keep-header", "x-team"),
        *("--header-from-env", "x-more=THE_TEAM"),
    )
    shown = shell.good("providers", "show", "openai", "--json").json()
    assert shown["headers"] == {"x-team": "***", "x-more": "***"}
    shell.good("providers", "update", "openai", "--no-headers")
    assert shell.good("providers", "show", "openai", "--json").json()["headers"] == {}
    assert "team-secret" not in shell.good("audit", "--json").out


def test_a_change_that_changes_nothing_is_told(shell: Shell) -> None:
    add_openai_with_key(shell)
    assert "nothing to change (revision 1)" in shell.good("providers", "enable", "openai").out


def test_what_breaks_a_rule_is_refused_with_the_reason(shell: Shell) -> None:
    add_openai_with_key(shell)
    done = shell.run("providers", "update", "openai", "--base-url", "ftp://nowhere")
    assert done.status == 2
    assert "base_url" in done.err
    done = shell.run(
        "providers", "add", "openai", "--type", "openai", "--base-url", "https://x.org"
    )
    assert done.status == 2
    assert "taken" in done.err


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (("--keys-stdin",), "", "standard input does not contain a key"),
        (("--keys-stdin",), "two words\n", "does not contain a key"),
        (("--keys-from-env", "NOT_SET_HERE"), "", "NOT_SET_HERE is not set"),
        (("--header-from-env", "x-team"), "", "is not NAME=VARIABLE"),
    ],
)
def test_secrets_that_are_not_there_are_told(
    shell: Shell, arguments: tuple[str, ...], stdin: str, message: str
) -> None:
    base = ("providers", "add", "a", "--type", "openai", "--base-url", "https://x.org")
    done = shell.run(*base, *arguments, stdin=stdin)
    assert done.status == 2
    assert message in done.err
    assert not Path(shell.where[1]).exists()


def test_an_export_holds_no_secret_and_applied_again_changes_nothing(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_TEAM", "team-secret")
    add_openai(shell, "--keys-stdin", "--header-from-env", "x-team=THE_TEAM")
    file = tmp_path / "export.toml"
    shell.good("providers", "export", "--output", str(file))
    text = file.read_text()
    assert KEY not in text
    assert "team-secret" not in text
    done = shell.good("providers", "apply", str(file), "--prune")
    assert "nothing to change (revision 1)" in done.out
    changed = text.replace("https://api.openai.com/v1", "https://other.org/v1")
    done = shell.good("providers", "apply", "-", "--dry-run", stdin=changed)
    assert "updated  openai (base_url)" in done.out
    assert shell.good("providers", "show", "openai", "--json").json()["revision"] == 1
    shell.good("providers", "apply", "-", stdin=changed)
    shown = shell.good("providers", "show", "openai", "--json").json()
    assert shown["base_url"] == "https://other.org/v1"
    assert shown["keys"][0]["hint"] == "…wxyz"
    for more in ((), ("--dry-run",)):
        done = shell.run("providers", "apply", "-", "--prune", *more, stdin="providers = []")
        assert (done.status, "--allow-empty" in done.err) == (2, True)
    done = shell.good("providers", "apply", "-", "--prune", "--allow-empty", stdin="providers = []")
    assert "removed  openai" in done.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("providers = [", "is not TOML"),
        ("", "has no [[providers]]"),
        ("provider = []\nproviders = []", "did you mean providers"),
        (f'[[providers]]\nname = "a"\nkeys = ["{KEY}"]', "row 1: type: is missing"),
        (f'[[providers]]\nkeyz = ["{KEY}"]', "did you mean keys"),
    ],
)
def test_a_file_that_cannot_be_applied_says_why_and_no_secret(
    shell: Shell, text: str, message: str
) -> None:
    done = shell.run("providers", "apply", "-", stdin=text)
    assert done.status == 2
    assert message in done.err
    assert KEY not in done.err


def test_clients_in_an_applied_file_are_left_alone_and_said_to_be(shell: Shell) -> None:
    text = 'providers = []\n[[clients]]\nid = "ada"\n'
    assert "clients are ignored" in shell.good("providers", "apply", "-", stdin=text).err


def test_a_key_is_printed_once_and_listed_by_its_id_only(shell: Shell) -> None:
    for kind in ("client", "gateway", "admin"):
        done = shell.good("keys", "create", kind, "ada")
        [key] = done.out.splitlines()
        assert key not in done.err
        assert key not in shell.good("keys", "list", "--json").out
    found = shell.good("keys", "list", "--json").json()
    assert [(one["kind"], one["key"]["name"]) for one in found] == [
        ("client", "ada"),
        ("gateway", "ada"),
        ("admin", "ada"),
    ]
    assert found[2]["key"]["role"] == "read"
    assert "gateway" in shell.good("keys", "list", "gateway").out


def test_a_client_may_have_several_keys_and_lose_them_one_by_one(shell: Shell) -> None:
    first = shell.good("keys", "create", "client", "ada").out
    second = shell.good("keys", "create", "client", "ada").out
    assert first != second
    ids = [one["key"]["id"] for one in shell.good("keys", "list", "client", "--json").json()]
    assert len(ids) == 2
    shell.good("keys", "revoke", "client", "ada", ids[0])
    [left] = shell.good("keys", "list", "client", "--json").json()
    assert left["key"]["id"] == ids[1]
    shell.good("keys", "revoke", "client", "ada")
    assert shell.good("keys", "list", "client", "--json").json() == []


def test_keys_of_gateways_and_admins_are_revoked_by_name_or_id(shell: Shell) -> None:
    shell.good("keys", "create", "gateway", "front")
    shell.good("keys", "create", "admin", "ci", "--role", "write")
    shell.good("keys", "revoke", "gateway", "front")
    [admin] = shell.good("keys", "list", "admin", "--json").json()
    shell.good("keys", "revoke", "admin", admin["key"]["id"])
    assert shell.good("keys", "list", "--json").json() == []
    assert len(shell.good("keys", "list", "--json", "--revoked").json()) == 2
    assert "nothing to change" in shell.good("keys", "revoke", "gateway", "front").out
    assert shell.run("keys", "revoke", "gateway", "nobody").status == 2
    assert shell.run("keys", "revoke", "gateway", "front", "second").status == 2


def test_every_change_is_in_the_audit_without_its_secrets(shell: Shell) -> None:
    add_openai_with_key(shell)
    shell.good("providers", "disable", "openai", "--allow-empty")
    newest, oldest = shell.good("audit", "--json").json()
    assert (newest["action"], oldest["action"]) == ("provider.update", "provider.add")
    assert newest["actor"]["kind"] == "local"
    assert (newest["before"]["enabled"], newest["after"]["enabled"]) == (True, False)
    assert KEY not in shell.good("audit", "--json").out
    assert "enabled" in shell.good("audit", "--limit", "1").out
    assert shell.good("audit", "--json", "--before", str(newest["id"])).json() == [oldest]


def test_gateways_and_what_they_made_of_a_revision_are_listed(shell: Shell) -> None:
    add_openai_with_key(shell)
    assert "revision in force: 1" in shell.good("gateways").out
    listed = shell.good("gateways", "--json").json()
    assert listed.pop("epoch")
    assert listed == {"revision": 1, "unreadable": [], "gateways": []}
    assert shell.run("gateways", "--revision", "1", "--json").json()["gateways"] == []
    # It was said to be live nowhere, though gateways with --store serve it.
    assert "so none has confirmed the change;" in shell.run("gateways", "--revision", "1").err
    assert shell.run("gateways", "--revision", "2").status == 2


def test_a_change_that_no_gateway_is_there_to_apply_is_not_said_to_be_applied(
    shell: Shell,
) -> None:
    add_openai_with_key(shell)
    done = shell.run("providers", "disable", "openai", "--allow-empty", "--wait", "5")
    assert (done.status, "no gateway is connected" in done.err) == (1, True)
    done = shell.run(
        "providers", "enable", "openai", "--wait", "0.1", "--expect", "front,back", "--min", "2"
    )
    assert (done.status, "not live on front, back" in done.err) == (1, True)
    assert shell.run("keys", "create", "client", "web", "--wait", "0.1").status == 1


@pytest.mark.parametrize(
    "wrong",
    [
        ("--wait", "-1"),
        ("--wait", "nan"),
        ("--wait", "inf"),
        ("--expect", "front"),
        ("--min", "1"),
        ("--min", "-1", "--wait", "1"),
    ],
)
def test_how_to_wait_is_checked_before_the_change_is_made(
    shell: Shell, wrong: tuple[str, ...]
) -> None:
    add_openai_with_key(shell)
    assert shell.run("providers", "disable", "openai", "--allow-empty", *wrong).status == 2
    assert shell.run("keys", "create", "client", "web", *wrong).status == 2
    [provider] = shell.good("providers", "list", "--json").json()
    assert provider["enabled"]
    assert shell.good("keys", "list", "client", "--json").json() == []


def test_an_empty_variable_counts_as_unset(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_openai_with_key(shell)
    monkeypatch.setenv("BRIDGEPOOL_URL", "")
    monkeypatch.setenv("BRIDGEPOOL_STORE", shell.where[1])
    assert "openai" in Shell(capsys, monkeypatch, ()).good("providers", "list").out
    monkeypatch.setenv("BRIDGEPOOL_STORE", "")
    done = Shell(capsys, monkeypatch, ()).run("providers", "list")
    assert (done.status, "specify exactly one of" in done.err) == (2, True)


def test_a_store_whose_name_is_mistyped_is_not_made(shell: Shell) -> None:
    mistyped = Shell(shell._capsys, shell._monkeypatch, shell.where[:2])
    new = ("--type", "openai", "--base-url", "https://api.openai.com/v1")
    for command in (
        ("providers", "add", "openai", *new),
        ("providers", "apply", "-", "--allow-empty"),
        ("keys", "create", "gateway", "front"),
        ("providers", "list"),
        ("providers", "disable", "openai"),
        ("providers", "apply", "-", "--dry-run"),
        ("keys", "revoke", "gateway", "front"),
        ("audit",),
        ("gateways",),
        ("encryption", "rotate"),
    ):
        done = mistyped.run(*command, stdin="providers = []")
        assert done.status == 2
        assert "there is no store at" in done.err
    assert list(Path(shell.where[1]).parent.iterdir()) == []


def test_one_has_to_say_where(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    store = shell.where[1]
    nowhere = Shell(shell._capsys, monkeypatch, ())
    assert "specify exactly one of" in nowhere.run("providers", "list").err
    both = ("--store", store, "--url", "http://127.0.0.1:1")
    assert "specify exactly one of" in nowhere.run("providers", "list", *both).err
    monkeypatch.setenv("BRIDGEPOOL_STORE", store)
    nowhere.good("keys", "create", "gateway", "front", "--create")
    assert nowhere.good("providers", "list", "--json").json() == []


def test_a_password_in_the_argument_list_is_refused(shell: Shell) -> None:
    nowhere = Shell(shell._capsys, shell._monkeypatch, ())
    for command in (["providers", "list"], ["gateway"], ["control-plane"]):
        done = nowhere.run(*command, "--store", "postgresql://u:hidden@localhost/x")
        assert done.status == 2
        assert "PGPASSWORD" in done.err
        assert "hidden" not in done.err


def test_a_control_plane_needs_a_key_and_has_to_be_there(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("BRIDGEPOOL_ADMIN_KEY", raising=False)
    away = Shell(shell._capsys, monkeypatch, ("--url", "http://127.0.0.1:1"))
    assert "requires an admin key" in away.run("providers", "list").err
    missing = away.run("providers", "list", "--admin-key-file", str(tmp_path / "none"))
    assert "cannot be read" in missing.err
    monkeypatch.setenv("BRIDGEPOOL_ADMIN_KEY", "bpa_x_y")
    done = away.run("providers", "list")
    assert done.status == 2
    assert "did not answer" in done.err
    bad_ca = away.run("providers", "list", "--ca-file", str(tmp_path / "none"))
    assert "--ca-file" in bad_ca.err


def test_the_encryption_key_is_rotated(shell: Shell, tmp_path: Path) -> None:
    add_openai_with_key(shell)
    file = Path(f"{shell.where[1]}.key")
    old = file.read_text()
    nowhere = Shell(shell._capsys, shell._monkeypatch, ())
    assert nowhere.good("encryption", "new-key").out.strip()
    assert "2 keys" in nowhere.good("encryption", "add-key", str(file)).out
    assert "2 keys" in nowhere.good("encryption", "promote-key", str(file)).out
    rotate = ("encryption", "rotate", "--store", shell.where[1])
    assert "requires --encryption-key-file" in nowhere.run(*rotate, "--drop-old").err
    done = nowhere.good(*rotate, "--drop-old", "--encryption-key-file", str(file))
    assert "re-encrypted" in done.out
    assert file.read_text() != old
    assert len(file.read_text().split()) == 1
    assert shell.good("providers", "show", "openai", "--json").json()["problem"] is None
    shell._monkeypatch.setenv("BRIDGEPOOL_STORE", shell.where[1])
    assert "re-encrypted 0 rows" in nowhere.good("encryption", "rotate").out
    shell._monkeypatch.setenv("BRIDGEPOOL_STORE", "")
    assert "specify --store" in nowhere.run("encryption", "rotate").err
    file.write_text(old)
    shown = shell.run("providers", "show", "openai", "--json")
    assert shown.status == 2 or shown.json()["problem"] is not None
    assert nowhere.run("encryption", "add-key", str(tmp_path / "none")).status == 2


def test_a_change_warns_of_what_requests_will_not_like(shell: Shell) -> None:
    """A provider without a key, or a fallback that cannot be used, was accepted in silence."""
    base = ("--base-url", "https://api.example.com/v1")
    done = shell.good("providers", "add", "bare", "--type", "openai", *base)
    assert "warning: bare has no key: requests are sent to it without one" in done.err
    add_openai_with_key(shell)
    done = shell.good("providers", "update", "openai", "--fallback", "bare", "--fallback", "gone")
    assert done.err == (
        "warning: openai: its fallback gone cannot be used: there is no provider of that name\n"
    )
    assert shell.good("providers", "update", "openai", "--retries", "1").err == ""
    done = shell.good("providers", "remove", "bare")
    assert done.err == (
        "warning: openai: its fallback bare cannot be used: there is no provider of that name\n"
    )
    done = shell.good("providers", "update", "openai", "--no-keys", "--no-fallback")
    assert done.err.startswith("warning: openai has no key")
