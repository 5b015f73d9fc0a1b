"""`gateway replicas` and `gateway redis`: the processes there are, and the servers they use."""

import typer

from gateway.cli.admin_api import AdminApi
from gateway.cli.output import Json, reported, table


@reported
def replicas(as_json: Json = False) -> None:
    """List the processes that are alive on this Redis."""
    with AdminApi() as api:
        answer = api.call("GET", "/admin/replicas")
    if as_json:
        typer.echo(answer.text)
        return
    rows = []
    for each in answer.data["replicas"]:
        running = f"{each['in_flight']} of {each['max_in_flight']}"
        uptime = f"{each['uptime']} s"
        rows.append((each["name"], each["version"], each["role"], uptime, running, str(each["lanes"])))
    table(("name", "version", "role", "uptime", "in_flight", "lanes"), rows)


@reported
def redis(as_json: Json = False) -> None:
    """Show the Redis servers, each as it says itself."""
    with AdminApi() as api:
        answer = api.call("GET", "/admin/redis")
    if as_json:
        typer.echo(answer.text)
        return
    rows = []
    for node in answer.data["nodes"]:
        memory = f"{node['memory_used_bytes'] / 2**20:.1f} MiB"
        version = f"{node['server']} {node['version']}"
        disk = node["persistence"] + ("" if node["persistence_ok"] else " FAILS")
        replicas = ", ".join(f"{each['address']} {each['state']} {each['lag']} s" for each in node["replicas"])
        rows.append((node["address"], node["role"], version, f"{node['latency_ms']:g} ms", memory, disk, replicas))
    table(("address", "role", "version", "latency", "memory", "disk", "replicas"), rows)
    for address in answer.data["unreachable"]:
        typer.echo(f"out of reach: {address}", err=True)
