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


class SigningSecrets(Struct):
    """A client's, oldest first; none: its deliveries are not signed."""

    client_id: ClientId
    secrets: list[SigningSecret]


class NewSigningSecret(SigningSecret):
    """The one answer that shows the secret."""

    client_id: ClientId
    secret: Annotated[str, Meta(pattern="^whsec_", description="for the receiver, as Standard Webhooks writes it")]


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


CLIENT_SECRETS: Final = (
    Operation(
        "get",
        "/admin/clients/keys",
        "The keys by which a client shows who it is",
        {200: Answer("The keys' ids, and whether it needs one", ClientKeys)},
        (400, 401, 403, 404, 503),
        (CLIENT,),
    ),
    Operation(
        "post",
        "/admin/clients/keys",
        "Make a key, which no other answer shows; a client has two at most, and needs one from now on",
        {201: Answer("It is valid from now on", NewClientKey)},
        (400, 401, 403, 404, 409, 503),
        (CLIENT, Parameter("required", {"enum": ["true", "false"]}, "false: the client need not show it yet")),
    ),
    Operation(
        "post",
        "/admin/clients/keys/rotate",
        "Make the next key; of those before it the newest stays valid",
        {201: Answer("It is valid from now on", NewClientKey)},
        (400, 401, 403, 404, 409, 503),
        (CLIENT,),
    ),
    Operation(
        "post",
        "/admin/clients/keys/require",
        "Have a client that has a key need one from now on",
        {204: Answer("It needs one")},
        (400, 401, 403, 409, 503),
        (CLIENT,),
    ),
    Operation(
        "post",
        "/admin/clients/keys/release",
        "Revoke all keys of a client and ask it for none any more",
        {204: Answer("It needs none")},
        (400, 401, 403, 503),
        (CLIENT,),
    ),
    Operation(
        "delete",
        "/admin/clients/keys",
        "Revoke a key; a client without any is closed until it gets one or is released",
        {204: Answer("It opens nothing any more")},
        (400, 401, 403, 404, 503),
        (CLIENT, Parameter("key_id", {"type": "string", "pattern": "^key_[0-9a-f]{8}$"}, "which", required=True)),
    ),
    Operation(
        "get",
        "/admin/clients/signing",
        "What signs a client's deliveries",
        {200: Answer("The secrets' ids", SigningSecrets)},
        (400, 401, 403, 404, 503),
        (CLIENT,),
    ),
    Operation(
        "post",
        "/admin/clients/signing",
        "Make a signing secret, which no other answer shows; a client has two at most",
        {201: Answer("It signs from now on", NewSigningSecret)},
        (400, 401, 403, 404, 409, 503),
        (CLIENT,),
    ),
    Operation(
        "delete",
        "/admin/clients/signing",
        "Remove a signing secret",
        {204: Answer("It signs no more")},
        (400, 401, 403, 404, 503),
        (CLIENT, Parameter("secret_id", {"type": "string", "pattern": "^sec_[0-9a-f]{8}$"}, "which", required=True)),
    ),
)
