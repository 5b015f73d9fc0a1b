"""Key names: one partition without tags, or many whose keys share a slot; nothing a caller sends chooses a slot."""

from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from gateway.store.keyspace import PARTITIONS_ON_CLUSTER, Keyspace

CLIENT_IDS = st.from_regex(r"[A-Za-z0-9_-]{3,64}", fullmatch=True)


@given(CLIENT_IDS, st.text(min_size=1), st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_every_key_of_a_client_lies_in_one_slot(client_id: str, idempotency_key: str, queue: str) -> None:
    """Whatever braces an idempotency key has: a script touches one slot, the doorbell's channel included."""
    keyspace = Keyspace("any{thing}:".replace("{", "").replace("}", ""), PARTITIONS_ON_CLUSTER)
    partition = keyspace.partition(client_id)
    keys, (tag, prefix, bell_head, publish) = keyspace.scope(partition)
    names = {
        *keys,
        keyspace.config(client_id),
        keyspace.task(client_id, "0123"),
        keyspace.idempotency(client_id, idempotency_key),
        keyspace.bells[partition],
        *keyspace.guard(partition),
        f"{bell_head}{tag}",
        f"{prefix}task:0123{tag}",
        f"{prefix}stream:{client_id}:{queue}{tag}",
        f"{prefix}ratelimit:{client_id}:28401{tag}",
    }
    assert publish == "SPUBLISH"
    assert len({key_slot(name.encode()) for name in names}) == 1


def test_partitions_have_slots_of_their_own_all_over_the_cluster() -> None:
    """No two partitions share a slot, and each sixth of the slots has some: three primaries or six share the work."""
    keyspace = Keyspace("", PARTITIONS_ON_CLUSTER)
    slots = {key_slot(keyspace.ready(partition).encode()) for partition in range(PARTITIONS_ON_CLUSTER)}
    assert len(slots) == PARTITIONS_ON_CLUSTER
    shares = [sum(start <= slot < start + 16384 / 6 for slot in slots) for start in (i * 16384 / 6 for i in range(6))]
    assert min(shares) >= PARTITIONS_ON_CLUSTER / 6 / 2


@given(CLIENT_IDS, st.sampled_from([1, PARTITIONS_ON_CLUSTER]), st.sampled_from(["", "gw:"]))
def test_a_settings_key_leads_back_to_its_client(client_id: str, partitions: int, prefix: str) -> None:
    """What another program wrote is found by its key, which keeps its documented name on one Redis."""
    keyspace = Keyspace(prefix, partitions)
    key = keyspace.config(client_id)
    assert keyspace.config_client(key) == client_id
    assert key.startswith(f"{prefix}client_config:{client_id}")
    assert partitions > 1 or key == f"{prefix}client_config:{client_id}"


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_idempotency_keys_are_different_keys(one: str, other: str) -> None:
    """Escaping braces makes no two keys one."""
    keyspace = Keyspace("", PARTITIONS_ON_CLUSTER)
    same = keyspace.idempotency("acme", one) == keyspace.idempotency("acme", other)
    assert same == (one == other)


def test_one_redis_is_the_case_of_one_partition_without_a_tag() -> None:
    """The keys operators look at with redis-cli have their documented names."""
    keyspace = Keyspace("", 1)
    assert keyspace.scope(0) == (
        ("ready", "due", "leases", "active", "clients", "totals"),
        ("", "", "doorbell", "PUBLISH"),
    )
    assert keyspace.config("acme") == "client_config:acme"
    assert keyspace.bells == ["doorbell"]
