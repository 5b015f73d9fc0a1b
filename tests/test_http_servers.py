"""The sender against servers that people run: nginx, Node, aiohttp. They close, chunk and refuse each in their way."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from conftest import until
from raw_http import a_task

from gateway.dispatch.egress import EgressGuard
from gateway.dispatch.sender import HttpSender
from gateway.models import Outcome, Verdict

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; keepalive_requests 3; client_max_body_size 100k;
  server {{
    listen 127.0.0.1:{port};
    location /empty {{ return 204; }}
    location /moved {{ return 301 /empty; }}
    location /file {{ root {folder}; }}
    location / {{ return 200 "hello"; }}
  }}
}}
"""
NODE = """
const http = require("http");
const server = http.createServer((request, response) => {
  let size = 0;
  request.on("data", piece => { size += piece.length; });
  request.on("end", () => {
    if (request.url == "/hints") response.writeEarlyHints({link: "</a>; rel=preload"});
    if (request.url == "/length") { response.setHeader("Content-Length", 5); return response.end("hello"); }
    if (request.url == "/trailers") response.setHeader("Trailer", "X-T");
    response.setHeader("X-Connection", request.socket.remotePort);
    response.write(request.socket.remotePort + " " + request.method + " " + size);
    if (request.url == "/trailers") response.addTrailers({"X-T": "x"});
    response.end();
  });
});
server.keepAliveTimeout = 2000;
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"""


@pytest.fixture
async def sender() -> AsyncIterator[HttpSender]:
    async with HttpSender(EgressGuard(["127.0.0.0/8"]), 10) as opened:
        yield opened


@contextlib.asynccontextmanager
async def running(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The program, until the end of the block."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def call(sender: HttpSender, url: str, **changes: object) -> Outcome:
    return await asyncio.wait_for(sender.send(a_task(url, **changes), 10), 20)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
async def test_nginx(sender: HttpSender, tmp_path: Path) -> None:
    """Kept connections, those nginx ends after three requests, 204, HEAD, redirects, large answers and a body that is
    refused while it is sent, without one attempt lost."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=port))
    url = f"http://127.0.0.1:{port}"
    async with running("nginx", "-c", str(config), "-p", str(tmp_path)):

        async def up() -> bool:
            return (await call(sender, url)).attempt.status is not None

        await until(up)
        for _ in range(10):
            outcome = await call(sender, url, method="GET")
            assert (outcome.verdict, outcome.attempt.body) == (Verdict.DELIVERED, "hello")
            outcome = await call(sender, url + "/empty", method="DELETE")
            assert (outcome.verdict, outcome.attempt.body) == (Verdict.DELIVERED, "")
            outcome = await call(sender, url, method="HEAD")
            assert (outcome.verdict, outcome.attempt.body) == (Verdict.DELIVERED, "")
        assert (await call(sender, url + "/moved", method="GET")).reason == "http 301"
        outcome = await call(sender, url + "/file", method="GET")
        assert (outcome.reason, outcome.attempt.body) == ("http 200", "x" * 4096)
        for size in (200_000, 20_000_000):
            outcome = await call(sender, url, body=b"x" * size)
            assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, "http 413")


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
async def test_node(sender: HttpSender, tmp_path: Path) -> None:
    """Chunks, trailers, early hints, HEAD and bodies large and small, over one connection that Node keeps and we
    keep."""
    program = tmp_path / "target.js"
    program.write_text(NODE)
    async with running("node", str(program)) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(await process.stdout.readline())}"
        ports = set()
        for path in ("/", "/hints", "/trailers"):
            for method, body in (("POST", None), ("GET", None), ("PUT", b"x" * 3_000_000), ("PATCH", b"")):
                outcome = await call(sender, url + path, method=method, body=body)
                assert outcome.verdict is Verdict.DELIVERED
                assert outcome.attempt.body is not None
                peer, said, size = outcome.attempt.body.split(" ")
                ports.add(peer)
                assert (said, int(size)) == (method, len(body or b""))
        assert len(ports) == 1
        for _ in range(3):
            outcome = await call(sender, url + "/length", method="HEAD")
            assert (outcome.verdict, outcome.attempt.body) == (Verdict.DELIVERED, "")


async def test_aiohttp(sender: HttpSender) -> None:
    """Compressed, chunked and refused: the answers of aiohttp's server, and the requests as it reads them."""
    seen = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append((request.method, request.path_qs, await request.text(), request.headers["X-Task-ID"]))
        response = web.StreamResponse(status=202)
        response.enable_compression(web.ContentCoding.gzip)
        await response.prepare(request)
        await response.write(b"0" * 100_000)
        return response

    app = web.Application(client_max_size=1000)
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        for _ in range(3):
            outcome = await call(sender, url + "/a?b=%20c", body="ü".encode())
            assert (outcome.verdict, outcome.attempt.status) == (Verdict.DELIVERED, 202)
            assert len(outcome.attempt.body or "") < 4096
        assert seen == [("POST", "/a?b=%20c", "ü", "task-1")] * 3
        assert (await call(sender, url, body=b"x" * 10_000)).reason == "http 413"
    finally:
        await runner.cleanup()
