"""What the samples in this folder hold, in the clear. The keys open nothing but these samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

FOLDER: Final = Path(__file__).parent
HOST: Final = "127.83.97.109"
"""Loopback, and no other program's: the samples name it, so a test has to listen there."""
PORT: Final = 8783
UPSTREAM: Final = f"http://{HOST}:{PORT}"
REVISION: Final = 28
"""Of the store, and of both snapshot files."""
AUDIT_ENTRIES: Final = 38
SNAPSHOT_WRITTEN: Final = 1_795_895_220.0
"""When both snapshot files were written, in seconds since 1970, to about two seconds."""


@attrs.frozen(kw_only=True)
class SampleProvider:
    """A provider with all that earlier code knew of one."""

    name: str
    type: str = "openai"
    base_url: str = f"{UPSTREAM}/v1"
    keys: tuple[str, ...] = ()
    key_env: str | None = None
    client_keys: bool = False
    enabled: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    allow_private: bool = True

    @property
    def is_local(self) -> bool:
        """Whether a test can be its upstream."""
        return self.base_url.startswith(UPSTREAM)


def _keys(*names: str) -> tuple[str, ...]:
    return tuple(f"sk-sample-{name}-0123456789abcdef" for name in names)


# -- the provider file -------------------------------------------------------------------------

FILE_PROVIDERS: Final = (
    SampleProvider(
        name="file-full",
        keys=_keys("file-full-1", "file-full-2"),
        headers=(("openai-organization", "org-sample"), ("x-team", "team of the sample")),
    ),
    SampleProvider(
        name="file-anthropic",
        type="anthropic",
        base_url=UPSTREAM,
        key_env="SAMPLE_FILE_KEY",
        headers=(("anthropic-beta", "sample-2026"),),
    ),
    SampleProvider(
        name="file-bring",
        base_url="https://api.example.com/v1",
        client_keys=True,
        allow_private=False,
    ),
    SampleProvider(
        name="file-off",
        type="anthropic",
        base_url="https://off.example.com",
        keys=_keys("file-off"),
        enabled=False,
    ),
    SampleProvider(name="file-none", base_url="http://[fd00::7]:11434/v1"),
)
FILE_CLIENT_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "file-one": ("bp_vrsngfwi7icw_c5psnHs1e87x7suzXBQpm7_4Hfd-3DaNruzlEm9Jwm0",),
    "file-two": (
        "bp_oewad0i8ry8m_MrWh9t1lOdN3LYDppl3M_xPCGp9xJAOTtyqrGkBvu30",
        "bp_ztgh47ew0fy0_It41Xj-2_EtxJ8CU7Xa-iWYPZBZI8O30TSb_4k3hWRY",
    ),
}
"""The keys of each client of the provider file."""

# -- the store and its snapshots ---------------------------------------------------------------

STORE_PROVIDERS: Final = (
    SampleProvider(
        name="seed-full",
        keys=_keys("seed-full-1", "seed-full-2"),
        headers=(("openai-organization", "org-seed"), ("x-team", "team of the seed")),
    ),
    SampleProvider(
        name="seed-env",
        type="anthropic",
        base_url="https://api.example.com",
        key_env="SAMPLE_SEED_KEY",
        allow_private=False,
    ),
    SampleProvider(
        name="seed-bring",
        base_url="https://bring.example.com/v1",
        client_keys=True,
        allow_private=False,
    ),
    SampleProvider(
        name="seed-off", base_url="https://off.example.com/v1", enabled=False, allow_private=False
    ),
    SampleProvider(name="seed-edited", keys=_keys("seed-edited")),
    SampleProvider(
        name="made-full",
        type="anthropic",
        base_url=UPSTREAM,
        keys=_keys(*(f"made-full-{number}" for number in range(1, 6))),
        headers=(("x-second", "second-header"), ("x-team", "team-made-by-hand")),
    ),
    SampleProvider(
        name="made-off",
        base_url="https://off.example.com/v1",
        keys=_keys("made-off"),
        enabled=False,
        allow_private=False,
    ),
    SampleProvider(name="made-env", key_env="SAMPLE_MADE_KEY"),
    SampleProvider(name="made-again", keys=_keys("made-again")),
    SampleProvider(name="made-renamed", client_keys=True),
)
"""In the order in which they were added."""
SEED_DRIFT: Final = (
    ("provider", "seed-edited", "was changed by hand: base_url, allow_private"),
    ("provider", "seed-gone", "was removed by hand"),
    ("client", "seed-changed", "was changed by hand: keys"),
    ("client", "seed-gone", "was removed by hand"),
)
"""What seed.toml gives when it is applied once more; it changes nothing."""
CLIENT_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "ada": (
        "bp_kqrso7vz2o5e_Kr5uMtLv_97qd4kjIhLa46D3K1cVuS-7TJnh3AH6ZTQ",
        "bp_i7e8e35mgbza_XRxgoSoz1kPBdvxXv3KEZnIFySWI3VjK9lQAbq5jfp8",
    ),
    "first": ("bp_e2fep7ep08l1_Z0ryNqNJtuPvakd3dvNrhhgMJZAJ5uPovTOISN6D0tc",),
    "seed-one": ("bp_ijvmx7zon82k_QKcGVpS9xupSh93NarwJuDJRxoXir7bQCeMYIl8bQxg",),
    "seed-two": (
        "bp_dqsks0ic2vq2_S8lIKw_AtSNyFoPFjXMbpQpnBDAvIavttZAnY073TNs",
        "bp_dcltmx2veewf_x91pYUsi6uTWaXi-K60kOzwFHP44PFfBTs7sJ05tTlw",
    ),
    "seed-changed": (
        "bp_phnjb1wyrxpk_Yq1NQwynsKT9yQOs-mihaYnY5PQ2xicyIYAX7slGw6s",
        "bp_culuhpo1w01z_Wc6yxEwbeURkYdEU3pJStjHNhQ1cJy9mygzifApbQZw",
    ),
}
"""The good keys of each client."""
REVOKED_CLIENT_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "ada": ("bp_ext3u8w6e094_idr-3fv-zgMZDqt8oNlJuwBExFG27bGgr3c0yhVv2vk",),
    "bob": ("bp_1pxck3a2abwy_dszJiZOiXp7qyzeStYxzta5yGkXyEk7yyGNCovFbMjc",),
    "seed-gone": ("bp_i0gsx2gabl3c_51p6K4r1iBeTjNtymxsiTSUv1ps1yOoWdGflWDReoL4",),
}
"""Of ada one key was revoked; the other clients were removed."""
GATEWAY_KEYS: Final[Mapping[str, str]] = {
    "north": "bpg_18sbofxs8ys9_xJf6cq6-Sfy22S86htCMCY8X47zJWmnp_xhNu17zRSQ",
    "first": "bpg_bp40t3tnxf04_UINrUbzSrPGBbOTjM_430uOmbhwErUaMFZzq8bzpsYQ",
}
"""The good keys of gateways."""
REVOKED_GATEWAY_KEY: Final = "bpg_8ekqbet4ixy2_udC7jZFJ9FYLPPCJd-4IDZOIcD6uKWIbQ2Xh4Q5_O6U"
ADMIN_KEYS: Final[Mapping[str, tuple[str, str]]] = {
    "reader": ("read", "bpa_261ln37t0g3t_xBCMMJO8kQephAlKDckwfAaLae_WehInVBQMLyr5C5A"),
    "writer": ("write", "bpa_y77kztcp4fi3_LazkD_yfFMQATS0L13mh2vlZgkYGa7dj4_HMMLW6tTU"),
    "first": ("write", "bpa_4ylqjpy0dyaz_Z3az29U-JWxl0FfLDNX0K75Ezmg-LHIDSQcDPwcVGq0"),
}
"""The role and the key of each admin."""
REVOKED_ADMIN_KEY: Final = "bpa_dvmh4xv92t9f_H-9tM7m-cf-53ELojrFJ3nzR_uk4kWoTGSv5Jvks-W4"
SNAPSHOT_CLIENT_KEYS: Final = (CLIENT_KEYS["ada"][0], CLIENT_KEYS["seed-two"][1])
"""Of the clients that the gateway which wrote the snapshot files had served."""
