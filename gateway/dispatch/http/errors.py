"""Why a call came to nothing. ``reason`` is short and stable: callers of the API read it."""


class CallFailed(Exception):
    """The network, the target or the clock ended the call; another try may work."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class InvalidRequest(ValueError):
    """This request can't be made at all, and no other try will change that."""

    def __init__(self, reason: str = "invalid request") -> None:
        super().__init__(reason)
        self.reason = reason
