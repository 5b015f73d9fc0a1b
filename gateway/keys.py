"""The typed keys under which the application and a request keep what is theirs."""

from typing import Final

from aiohttp import web

from gateway.admin_keys import AdminKey
from gateway.middleware.contracts import Asked, Dispatching, MakeExpress, Plan, TargetCheck
from gateway.middleware.guesses import Guesses
from gateway.middleware.keyring import Keyring
from gateway.middleware.session_cookie import Session
from gateway.models import Client, Window
from gateway.settings import Settings
from gateway.store import Store


class AppKeys:
    """What lives as long as the application."""

    SETTINGS: Final = web.AppKey("settings", Settings)
    KEYRING: Final = web.AppKey("keyring", Keyring)
    CLIENT_GUESSES: Final = web.AppKey("client_guesses", Guesses)
    STORE: Final = web.AppKey("store", Store)
    DISPATCHER: Final[web.AppKey[Dispatching | None]] = web.AppKey("dispatcher")
    GUARD: Final[web.AppKey[TargetCheck]] = web.AppKey("guard")
    CONNECTIONS: Final = web.AppKey("connections", int)
    EXPRESS: Final[web.AppKey[MakeExpress]] = web.AppKey("express")


class RequestKeys:
    """What one request carries along the chain."""

    REQUEST_ID: Final = web.RequestKey("request_id", str)
    TRACE: Final = web.RequestKey("trace", str)
    ADMIN_KEY: Final = web.RequestKey("admin_key", AdminKey)
    ADDRESS: Final = web.RequestKey("address", str)
    SESSION: Final = web.RequestKey("session", Session)
    ASKED: Final = web.RequestKey("asked", Asked)
    CLIENT: Final = web.RequestKey("client", Client)
    CREATE: Final = web.RequestKey("create", bool)
    PLANS: Final[web.RequestKey[list[Plan]]] = web.RequestKey("plans", list)
    WINDOW: Final[web.RequestKey[tuple[Window, int]]] = web.RequestKey("window", tuple)
