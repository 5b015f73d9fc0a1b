"""The calls that make and remove what a client shows and what signs its deliveries."""

from datetime import datetime
from typing import Annotated, Final

from msgspec import Meta, Struct

from gateway.openapi.answers import ClientId
from gateway.openapi.operation import CLIENT, Answer, Operation, Parameter


class SigningSecret(Struct):
    """What signs a client's deliveries, without itself."""

    secret_id: Annotated[str, Meta(pattern="^sec_[0-9a-f]{8}$")]
    created_at: datetime
    sealed_with: Annotated[
        str | None,
        Meta(description="the id of the key of TASK_ENCRYPTION_KEYS that opens it; null: stored in the clear"),
    ]
    unreadable: Annotated[str | None, Meta(description="why it can't be opened, and calls are not made; null: it can")]


class SigningSecrets(Struct):
    """A client's, oldest first; none: its deliveries are not signed."""

    client_id: ClientId
    secrets: list[SigningSecret]


class NewSigningSecret(SigningSecret):
    """The one answer that shows the secret."""

    client_id: ClientId
    secret: Annotated[str, Meta(pattern="^whsec_", description="for the receiver, as Standard Webhooks writes it")]


class UnreadableSecret(Struct):
    """One that no key of TASK_ENCRYPTION_KEYS opens."""

    client_id: ClientId
    secret_id: str
    reason: str


class Resealed(Struct):
    """What became of the secrets of some clients."""

    clients: Annotated[int, Meta(ge=0, description="that were looked at")]
    resealed: Annotated[int, Meta(ge=0, description="secrets that were stored anew")]
    unreadable: list[UnreadableSecret]
    next_cursor: Annotated[str | None, Meta(description="null after the last client")]


class ClientKey(Struct):
    """A client's key, without itself."""

    key_id: Annotated[str, Meta(pattern="^key_[0-9a-f]{8}$")]
    created_at: datetime


class ClientKeys(Struct):
    """A client's, oldest first."""

    client_id: ClientId
    required: Annotated[bool, Meta(description="whether the client needs one; without any it is closed then")]
    keys: list[ClientKey]


class NewClientKey(ClientKey):
    """The one answer that shows the key."""

    client_id: ClientId
    key: Annotated[str, Meta(pattern="^gwk_", description="for the client, which sends it with each request")]


def _of_client(
    method: str, path: str, summary: str, answers: dict[int, Answer], *refusals: int, more: Parameter | None = None
) -> Operation:
    """A call about the keys or secrets of one client; ``refusals`` and ``more``: besides those that all have."""
    parameters = (CLIENT,) if more is None else (CLIENT, more)
    return Operation(method, f"/admin/clients/{path}", summary, answers, (400, 401, 403, *refusals, 503), parameters)


CLIENT_SECRETS: Final = (
    _of_client(
        "get",
        "keys",
        "The keys by which a client shows who it is",
        {200: Answer("The keys' ids, and whether it needs one", ClientKeys)},
        404,
    ),
    _of_client(
        "post",
        "keys",
        "Make a key, which no other answer shows; a client has two at most, and needs one from now on",
        {201: Answer("It is valid from now on", NewClientKey)},
        404,
        409,
        more=Parameter("required", {"enum": ["true", "false"]}, "false: the client need not show it yet"),
    ),
    _of_client(
        "post",
        "keys/rotate",
        "Make the next key; of those before it the newest stays valid",
        {201: Answer("It is valid from now on", NewClientKey)},
        404,
        409,
    ),
    _of_client(
        "post", "keys/require", "Have a client that has a key need one from now on", {204: Answer("It needs one")}, 409
    ),
    _of_client(
        "post",
        "keys/release",
        "Revoke all keys of a client and ask it for none any more",
        {204: Answer("It needs none")},
    ),
    _of_client(
        "delete",
        "keys",
        "Revoke a key; a client without any is closed until it gets one or is released",
        {204: Answer("It opens nothing any more")},
        404,
        more=Parameter("key_id", {"type": "string", "pattern": "^key_[0-9a-f]{8}$"}, "which", required=True),
    ),
    _of_client(
        "get", "signing", "What signs a client's deliveries", {200: Answer("The secrets' ids", SigningSecrets)}, 404
    ),
    _of_client(
        "post",
        "signing",
        "Make a signing secret, which no other answer shows; a client has two at most",
        {201: Answer("It signs from now on", NewSigningSecret)},
        404,
        409,
    ),
    _of_client(
        "delete",
        "signing",
        "Remove a signing secret",
        {204: Answer("It signs no more")},
        404,
        more=Parameter("secret_id", {"type": "string", "pattern": "^sec_[0-9a-f]{8}$"}, "which", required=True),
    ),
    Operation(
        "post",
        "/admin/clients/signing/reseal",
        "Store signing secrets anew as TASK_ENCRYPTION_KEYS says now, some clients at a time",
        {200: Answer("How many, and which can't be opened", Resealed)},
        (400, 401, 403, 503),
        (
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 500}, "clients, 500 unless given"),
            Parameter("cursor", {"type": "string"}, "the `next_cursor` of the call before"),
        ),
    ),
)
