"""The sums and the firsts of clients that are looked at some at a time."""

import random

from gateway.store.roll import LONGEST, ClientFigures, Roll


def client(number: int, chance: random.Random) -> ClientFigures:
    queued, dead = chance.choice((0, 0, chance.randrange(1000))), chance.choice((0, 3))
    waits = chance.random() * 1000 if queued else None
    return ClientFigures(f"client-{number}", queued, 0, 0, dead, waits, (0.0, chance.choice((0.5, 1.5)), 0.0))


def test_sums_and_firsts_are_those_of_a_walk_over_all() -> None:
    """Round after round, in which clients come and go, everything is what counting all that was seen anew would give;
    in the middle of a round, the sums are, and whoever is first of those that were met is first."""
    chance = random.Random(11)
    roll = Roll()
    for _ in range(4):
        names = chance.sample(range(400), 300)
        for start in range(0, len(names), 50):
            looked = [client(number, chance) for number in names[start : start + 50]]
            roll.meet(looked)
            seen = list(roll.seen.values())
            assert roll.sums == tuple(sum(one.depths[at] for one in seen) for at in range(4))
            assert roll.active == sum(any(one.depths[:3]) for one in seen)
            assert roll.at_limit == (0, sum(one.shares[1] >= 1 for one in seen), 0)
            most = max(looked, key=lambda one: one.oldest_waiting or 0)
            assert (roll.longest()[0].oldest_waiting or 0) >= (most.oldest_waiting or 0)
        roll.end_round()
        seen = list(roll.seen.values())
        assert len(seen) == len(names)
        waiting = sorted((one.oldest_waiting for one in seen if one.oldest_waiting is not None), reverse=True)
        assert [one.oldest_waiting for one in roll.longest()] == waiting[:LONGEST]
        assert [sum(one.depths) for one in roll.largest()] == sorted(
            (sum(one.depths) for one in seen if any(one.depths)), reverse=True
        )
        assert roll.highest() == (0.0, max(one.shares[1] for one in seen), 0.0)


def test_who_is_unmet_is_as_before() -> None:
    """In the middle of a round, who was first in the last one still is, until it is looked at again."""
    roll = Roll()
    old = [ClientFigures(f"client-{n}", n, 0, 0, 0, float(n), (0.0, 0.0, 0.0)) for n in range(1, 5)]
    roll.meet(old)
    roll.end_round()
    roll.meet([ClientFigures("client-4", 0, 0, 0, 0, None, (0.0, 0.0, 0.0))])
    assert [one.client_id for one in roll.longest()] == ["client-3", "client-2", "client-1"]
    assert (roll.sums, roll.active) == ((6, 0, 0, 0), 3)
