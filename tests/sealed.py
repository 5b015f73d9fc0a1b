"""Gateways over each deployment in turn, and somebody who reads what its servers hold."""

import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from conftest import GatewayFactory
from deployments import Deployment


@pytest.fixture
def store_url(deployment: Deployment) -> str:
    """Where the `gateway` fixture has its store."""
    return deployment.url


@pytest.fixture
def gateways(gateway: GatewayFactory, deployment: Deployment) -> GatewayFactory:
    """As `gateway`, on the deployment."""
    return functools.partial(gateway, **deployment.environment)


@pytest.fixture
async def raw(deployment: Deployment) -> AsyncIterator[Any]:
    """Somebody who reads and writes Redis, in bytes."""
    async with deployment.raw(decode=False) as client:
        yield client


async def everything(raw: Any) -> str:
    """All that Redis holds, keys and values, each as its type is read: a DUMP may be compressed."""
    found: list[Any] = []
    async for key in raw.scan_iter():
        match await raw.type(key):
            case b"string":
                value: Any = await raw.get(key)
            case b"hash":
                value = await raw.hgetall(key)
            case b"zset":
                value = await raw.zrange(key, 0, -1)
            case b"stream":
                value = await raw.xrange(key)
            case b"none":
                continue  # it has gone meanwhile
            case kind:
                raise AssertionError(f"{kind!r} is not read")
        found.append((key, value))
    return repr(found)
