"""Sealed tasks: what Redis keeps can't be read without a key, nor moved, and keys can be changed while tasks wait."""

import base64
import itertools

import pytest

from gateway.settings import Settings, SettingsError
from gateway.store.sealing import Sealer, Unreadable

OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
PLAIN = b'{"card": "canary-4111"}'


def keys(**named: bytes) -> str:
    """TASK_ENCRYPTION_KEYS of these."""
    return ",".join(f"{name}:{base64.b64encode(key).decode()}" for name, key in named.items())


def sealer(text: str) -> Sealer:
    return Sealer(Settings.load({"TASK_ENCRYPTION_KEYS": text}).task_encryption_keys)


def test_what_was_sealed_opens_again() -> None:
    """Bytes of any length come back as they were, and each sealing looks different."""
    one = sealer(keys(k1=OLD))
    for plain in (b"", b"x", PLAIN, bytes(range(256)) * 4000):
        sealed = one.seal("acme", "0a1b", plain, "task")
        assert one.open("acme", "0a1b", sealed, "task") == plain
        assert len(plain) < 8 or plain[:8] not in base64.b64decode(sealed.partition(".")[2])
        assert sealed != one.seal("acme", "0a1b", plain, "task")
        assert sealed.isascii()
        assert sealed.isprintable()


@pytest.mark.parametrize(
    ("client", "unique", "purpose"), [("evil", "0a1b", "task"), ("acme", "0a1c", "task"), ("acme", "0a1b", "answer")]
)
def test_sealed_text_opens_in_its_own_place_only(client: str, unique: str, purpose: str) -> None:
    """Moved to another client, another task or another field of the same task, it does not open."""
    one = sealer(keys(k1=OLD))
    sealed = one.seal("acme", "0a1b", PLAIN, "task")
    with pytest.raises(Unreadable, match="changed, or moved"):
        one.open(client, unique, sealed, purpose)  # type: ignore[arg-type]


def test_client_and_task_can_not_be_confused() -> None:
    """No two pairs of client and task share a key, whatever their ids are put together of."""
    one = sealer(keys(k1=OLD))
    pairs = [("ab-c", "d"), ("ab", "-cd"), ("ab-", "cd")]
    for (client, unique), (other, different) in itertools.permutations(pairs, 2):
        with pytest.raises(Unreadable):
            one.open(other, different, one.seal(client, unique, PLAIN, "task"), "task")


def test_every_changed_byte_is_noticed() -> None:
    """A flipped bit anywhere, a cut, an addition, or what is no base64: unreadable, and nothing else is raised."""
    one = sealer(keys(k1=OLD))
    name, _, text = one.seal("acme", "0a1b", b"ab", "task").partition(".")
    raw = base64.b64decode(text)
    broken = [raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] for at in range(len(raw))]
    broken += [raw[:-1], raw + b"\0", raw[:5], b""]
    for each in broken:
        with pytest.raises(Unreadable):
            one.open("acme", "0a1b", f"{name}.{base64.b64encode(each).decode()}", "task")
    for odd in ("", ".", "k1", "k1.", "k1.%%%", f"k1.{text} "):
        with pytest.raises(Unreadable):
            one.open("acme", "0a1b", odd, "task")


def test_keys_change_while_texts_are_kept() -> None:
    """The first key seals and all open: added behind, moved to the front, and the old one taken away at last."""
    sealed = sealer(keys(old=OLD)).seal("acme", "0a1b", PLAIN, "task")
    both = sealer(keys(new=NEW, old=OLD))
    assert both.open("acme", "0a1b", sealed, "task") == PLAIN
    newer = both.seal("acme", "0a1b", PLAIN, "task")
    assert newer.startswith("new.")
    assert sealer(keys(new=NEW)).open("acme", "0a1b", newer, "task") == PLAIN
    with pytest.raises(Unreadable, match="sealed with the key old, which TASK_ENCRYPTION_KEYS does not have"):
        sealer(keys(new=NEW)).open("acme", "0a1b", sealed, "task")
    with pytest.raises(Unreadable, match="key old"):
        sealer("").open("acme", "0a1b", sealed, "task")
    with pytest.raises(Unreadable, match="changed, or moved"):
        sealer(keys(old=OTHER)).open("acme", "0a1b", sealed, "task")  # another key under the same name


def test_none_opens_and_does_not_seal() -> None:
    """With `none` in the first place nothing is sealed and everything opens, so that it can be turned on and off while
    replicas run."""
    sealed = sealer(keys(k1=OLD)).seal("acme", "0a1b", PLAIN, "task")
    clear = sealer(f"none,{keys(k1=OLD)}")
    assert not clear.on
    assert clear.open("acme", "0a1b", sealed, "task") == PLAIN
    assert clear.fingerprint(b"\1\2") == "0102" == sealer("").fingerprint(b"\1\2")
    with pytest.raises(RuntimeError):
        clear.seal("acme", "0a1b", PLAIN, "task")


def test_fingerprints_tell_nothing_and_survive_a_change_of_keys() -> None:
    """A fingerprint is keyed, so that nobody can try bodies against it; one made by another key, or by none, is still
    the same task's, and another task's is not."""
    plain, different = b"p" * 16, b"q" * 16
    old, both = sealer(keys(old=OLD)), sealer(keys(new=NEW, old=OLD))
    made = [old.fingerprint(plain), both.fingerprint(plain), sealer("").fingerprint(plain)]
    assert len(set(made)) == 3
    assert not [text for text in made[:2] if plain.hex() in text]
    for stored in made:
        assert both.same(stored, plain)
        assert not both.same(stored, different)
    assert not sealer(keys(new=NEW)).same(old.fingerprint(plain), plain)


@pytest.mark.parametrize(
    "text",
    [
        "k1",
        "k1:",
        "k1:c2hvcnQ=",
        f"{keys(k1=OLD)}x",
        f"k 1:{base64.b64encode(OLD).decode()}",
        f":{base64.b64encode(OLD).decode()}",
        f"{keys(k1=OLD)},{keys(k1=NEW)}",
        f"{keys(k1=OLD)},{keys(k2=OLD)}",
        f"{keys(k1=OLD)},none",
        f"none:{base64.b64encode(OLD).decode()}",
        f"k1:{base64.b64encode(OLD * 2).decode()}",
    ],
)
def test_malformed_keys_stop_the_start(text: str) -> None:
    """Whatever is wrong with the keys is told without them."""
    with pytest.raises(SettingsError) as problem:
        Settings.load({"TASK_ENCRYPTION_KEYS": text})
    (mistake,) = problem.value.mistakes
    assert mistake.startswith("TASK_ENCRYPTION_KEYS: (hidden) is not allowed; allowed: id:key pairs")
    assert base64.b64encode(OLD).decode() not in mistake
    assert "c2hvcnQ" not in mistake


def test_keys_are_read_in_both_alphabets() -> None:
    """Base64 as URLs have it counts too, and spaces around entries do not matter."""
    key = bytes([251, 255]) * 16
    for encoded in (base64.b64encode(key), base64.urlsafe_b64encode(key)):
        settings = Settings.load({"TASK_ENCRYPTION_KEYS": f" k1:{encoded.decode()} , {keys(k2=NEW)}"})
        assert settings.task_encryption_keys == (("k1", key), ("k2", NEW))
        assert repr(key) not in repr(settings)
