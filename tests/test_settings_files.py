"""Settings that are files: tiers, and the keys of operators."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from test_settings import DEFAULTS
from test_settings_mistakes import mistakes

from gateway.admin_keys import AdminKey, Role
from gateway.models import RateLimit
from gateway.settings import Settings


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tiers.toml", "[gold]\nmax_concurrent = 7\nrequests_per_min = 70\n"),
        ("tiers.toml", "[tiers.gold]\nmax_concurrent = 7\nrequests_per_min = 70\n"),
        ("tiers.json", json.dumps({"gold": {"max_concurrent": 7, "requests_per_min": 70}})),
        ("tiers.json", json.dumps({"tiers": {"gold": {"max_concurrent": 7, "requests_per_min": 70}}})),
        ("tiers", json.dumps({"gold": {"max_concurrent": 7, "requests_per_min": 70}})),
    ],
)
def test_tiers_file(tmp_path: Path, name: str, content: str) -> None:
    """A tiers file, in either format and shape, adds to the shipped tiers."""
    (tmp_path / name).write_text(content)
    tiers = Settings.load({"TIERS_FILE": str(tmp_path / name)}).tiers
    assert tiers == {**DEFAULTS["tiers"], "gold": RateLimit(7, 70)}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("keys.toml", f"[ops]\nrole = 'operate'\nkey = '{'k' * 16}'\n"),
        ("keys.json", json.dumps({"keys": {"ops": {"role": "operate", "sha256": sha256(b"k" * 16).hexdigest()}}})),
    ],
)
def test_admin_keys_file(tmp_path: Path, name: str, content: str) -> None:
    """Keys come from a file in either format, plain or as their hash; the repr has neither."""
    (tmp_path / name).write_text(content)
    settings = Settings.load({"ADMIN_KEYS_FILE": str(tmp_path / name)})
    assert settings.admin_keys_file is not None
    assert settings.admin_keys_file.keys == (AdminKey("ops", Role.OPERATE, sha256(b"k" * 16).digest()),)
    assert settings.has_admin_keys
    assert "ops" not in repr(settings)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "it has no keys"),
        ("ops = 3", "'ops': Expected `object`"),
        ("[ops]\nrole = 'operate'", "either key or sha256"),
        ("[ops]\nrole = 'operate'\nkey = 'hunter'", "at least 16"),
        ("[ops]\nrole = 'root'\nkey = 'hunter-2222222222222'", "read, operate or admin"),
        ("[ops]\nrole = 'read'\nsha256 = 'hunter'", "64 hex digits"),
        ("['a b']\nrole = 'read'\nkey = 'hunter-2222222222222'", "a name is"),
        ("[ops]\nrole = 'read'\nkey = 'hunter-2222222222222'\ntier = 1", "unknown field `tier`"),
    ],
)
def test_bad_admin_keys_file(tmp_path: Path, content: str, why: str) -> None:
    """A file of keys that is wrong is a mistake that names the file and what is wrong in it, and no key."""
    file = tmp_path / "keys.toml"
    file.write_text(content)
    (mistake,) = mistakes({"ADMIN_KEYS_FILE": str(file)})
    assert mistake.startswith(f"ADMIN_KEYS_FILE: {str(file)!r}")
    assert why in mistake
    assert "hunter" not in mistake


def test_tiers_may_have_prices(tmp_path: Path) -> None:
    """A price is kept beside the limits, also of 0; one below that, or none that is a number, is a mistake."""
    file = tmp_path / "tiers.json"
    limits = {"max_concurrent": 7, "requests_per_min": 70}
    file.write_text(json.dumps({"gold": {**limits, "price": 9.5}, "trial": {**limits, "price": 0}, "free": limits}))
    settings = Settings.load({"TIERS_FILE": str(file)})
    assert settings.tier_prices == {"gold": 9.5, "trial": 0}
    assert settings.tiers["gold"] == RateLimit(7, 70)
    for price in ("-1", '"much"', "1e999"):
        file.write_text(json.dumps({"gold": limits}).replace("70}", f'70, "price": {price}}}'))
        (mistake,) = mistakes({"TIERS_FILE": str(file)})
        assert "gold" in mistake


def test_tiers_file_replaces_a_shipped_tier(tmp_path: Path) -> None:
    """A tier of the file that is shipped too, or that is called "tiers", is the file's."""
    file = tmp_path / "tiers.toml"
    limit = "{max_concurrent = 2, requests_per_min = 20}"
    file.write_text(f"free = {limit}\ntiers = {limit}\n")
    tiers = Settings.load({"TIERS_FILE": str(file)}).tiers
    assert tiers["free"] == tiers["tiers"] == RateLimit(2, 20)
    assert tiers["basic"] == RateLimit(5, 100)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[gold", "Expected"),
        ("", "no tiers"),
        ("gold = 3", "'gold'"),
        ("[gold]\nmax_concurrent = 1", "requests_per_min"),
        ("[gold]\nmax_concurrent = 0\nrequests_per_min = 1", "at least 1"),
        ("[gold]\nmax_concurrent = 1\nrequests_per_min = 1\nburst = 3", "burst"),
        ("[gold]\nmax_concurrent = true\nrequests_per_min = 1", "max_concurrent"),
        ('["a b"]\nmax_concurrent = 1\nrequests_per_min = 1', "'a b'"),
    ],
)
def test_bad_tiers_file(tmp_path: Path, content: str, why: str) -> None:
    """A tiers file that is wrong is a mistake that names the file and what is wrong in it."""
    file = tmp_path / "tiers.toml"
    file.write_text(content)
    (mistake,) = mistakes({"TIERS_FILE": str(file)})
    assert mistake.startswith(f"TIERS_FILE: {str(file)!r}")
    assert why in mistake
