"""Which clients have labels of their own, and the gauges of what Redis holds of each."""

from collections.abc import Collection, Mapping
from typing import Final

from gateway.metrics.labels import OTHER, Children

DEPTHS: Final = ("queued", "scheduled", "running", "dead")
_NONE: Final = (0,) * len(DEPTHS)


class ClientLabels:
    """The first ``most`` clients that are seen keep their label, all others are `other`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.known: set[str] = set()

    def of(self, client_id: str) -> str:
        """The client's own label if it is among the first that were seen, else `other`."""
        if client_id in self.known:
            return client_id
        if len(self.known) < self.most:
            self.known.add(client_id)
            return client_id
        return OTHER


class Depths:
    """The depth gauges, by state and client."""

    def __init__(self, gauges: Mapping[str, Children], labels: ClientLabels, *, shared: bool) -> None:
        self._gauges = gauges
        self._labels = labels
        self._shared = shared
        # Clients whose depths are in the gauges now, by themselves or in `other`.
        self._shown: set[str] = set()
        # Clients past the cap that have tasks: their sum is what `other` shows.
        self._past_cap: dict[str, tuple[int, ...]] = {}
        self._past_cap_sum = _NONE
        # What clients have that nobody told of one by one.
        self._rest = _NONE

    def set(self, client_id: str, depths: tuple[int, ...]) -> None:
        """Show what a client has; all zero: withdraw it."""
        if any(depths):
            self._shown.add(client_id)
        else:
            self._shown.discard(client_id)
        # A client without tasks takes no label: what is shown must not depend on who was looked at first.
        known = client_id in self._labels.known or (any(depths) and self._labels.of(client_id) == client_id)
        if not known:
            before = self._past_cap.pop(client_id, _NONE)
            if any(depths):
                self._past_cap[client_id] = depths
            depths = tuple(
                total - old + new for total, old, new in zip(self._past_cap_sum, before, depths, strict=True)
            )
            self._past_cap_sum = depths
            self._show_other()
        else:
            self._show(client_id, depths)

    def set_rest(self, depths: tuple[int, ...]) -> None:
        """Show what all clients have that are not told of one by one, in `other`."""
        self._rest = depths
        self._show_other()

    def _show_other(self) -> None:
        self._show(OTHER, tuple(map(sum, zip(self._past_cap_sum, self._rest, strict=True))))

    def _show(self, label: str, depths: tuple[int, ...]) -> None:
        if any(depths):
            for state, depth in zip(DEPTHS, depths, strict=True):
                self._gauges[state][(label,)].set(depth)
        else:
            self._withdraw(label)

    def keep(self, client_ids: Collection[str]) -> None:
        """Withdraw all but these."""
        # What is gone from the list had no last look that said "nothing": its dead letters may just have expired.
        for client_id in self._shown.difference(client_ids):
            self.set(client_id, _NONE)

    def _withdraw(self, label: str) -> None:
        for children in self._gauges.values():
            children.withdraw((label,), shared=self._shared)
