"""Secrets planted everywhere, and looked for in everything that leaves a real process, whatever befalls its tasks."""

import asyncio
import base64
import json
import re
import secrets
import signal
import sys
from pathlib import Path
from typing import Any, Final

import aiohttp
import redis.asyncio as redis
from as_user import LOOPBACK, ROOT, Gateway, free_port, plain_environment
from conftest import Target, until
from processes import GENEROUS, Server

CLIENT: Final = "canary-client"
_IDS: Final = {"client_id": CLIENT, "queue": "default", "limit": "100"}


class Canaries:
    """Secrets by their names, and what has left the process by where it came out."""

    def __init__(self) -> None:
        self.planted: dict[str, str] = {}
        self.seen: list[tuple[str, str]] = []

    def plant(self, name: str, value: str = "") -> str:
        """A new secret, or one that somebody else made."""
        return self.planted.setdefault(name, value or f"cnry{secrets.token_hex(10)}")

    def saw(self, where: str, text: str | bytes) -> None:
        self.seen.append((where, text if isinstance(text, str) else text.decode("utf-8", "replace")))

    def leaks(self) -> list[str]:
        """Which secret came out where."""
        return [
            f"{name} in {where}" for where, text in self.seen for name, value in self.planted.items() if value in text
        ]


class World:
    """A gateway whose settings hold secrets, its password-protected Valkey, and who calls it."""

    def __init__(self, folder: Path, target: Target, session: aiohttp.ClientSession) -> None:
        self.canaries = Canaries()
        self.target = target
        self.session = session
        self.folder = folder
        self.server = Server(folder)
        plant = self.canaries.plant
        self.admin_key = plant("admin key")
        login = f"{plant('proxy user')}:{plant('proxy password')}"
        plant("proxy authorization", base64.b64encode(login.encode()).decode())
        self.redis_url = f"redis://:{plant('redis password')}@{LOOPBACK}:{self.server.port}"
        encryption = plant("encryption key", base64.b64encode(secrets.token_bytes(32)).decode())
        self.settings = {
            "REDIS_URL": self.redis_url,
            "REDIS_TIMEOUT": "0.5",
            "ADMIN_API_KEY": self.admin_key,
            "ADMIN_KEYS": f"grafana:read:{plant('read key')}",
            "OUTBOUND_PROXY": f"http://{login}@{LOOPBACK}:{free_port()}",
            "OUTBOUND_ALLOW": LOOPBACK,
            "TASK_ENCRYPTION_KEYS": f"k1:{encryption}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"{target.url}/collector",
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={plant('collector key')}",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "LOG_LEVEL": "debug",
        }
        self.gateway = Gateway(folder, **self.settings)
        self.client_key = ""

    async def start(self) -> None:
        await self.server.start()
        async with redis.Redis.from_url(self.server.url) as bare:
            await bare.config_set("requirepass", self.canaries.planted["redis password"])
        await asyncio.to_thread(self.gateway.start)

    async def call(self, method: str, path: str, *, told: bool = True, **kwargs: Any) -> tuple[int, str]:
        """Status and text; what comes back, headers included, is looked through unless it is to be a secret."""
        async with self.session.request(method, self.gateway.url + path, **kwargs) as answer:
            text = await answer.text()
            if told:
                self.canaries.saw(f"{method} {path.partition('?')[0]}: {answer.status}", f"{answer.headers!r}\n{text}")
            return answer.status, text

    async def admin(self, method: str, path: str, **kwargs: Any) -> tuple[int, str]:
        return await self.call(method, path, headers={"X-Admin-Key": self.admin_key}, **kwargs)

    async def mine(self, method: str, path: str, **kwargs: Any) -> tuple[int, str]:
        """As the client."""
        headers = {"Authorization": f"Bearer {self.client_key}", "Content-Type": "application/json"}
        return await self.call(method, path, headers=headers, **kwargs)

    async def enrol(self) -> None:
        """A client with a key and a signing secret, which are shown this once."""
        assert (await self.admin("POST", "/admin/clients/set", json={"client_id": CLIENT, "tier": "premium"}))[0] == 200
        for path, name in (("keys", "key"), ("signing", "secret")):
            status, text = await self.admin("POST", f"/admin/clients/{path}?client_id={CLIENT}", told=False)
            assert status == 201
            self.canaries.plant(f"client {name}", json.loads(text)[name])
        self.client_key = self.canaries.planted["client key"]

    def task(self, path: str, **more: Any) -> dict[str, Any]:
        """One that carries secrets wherever a task can."""
        plant = self.canaries.plant
        url = path if "://" in path else self.target.url + path
        return {
            "client_id": CLIENT,
            "task": {
                "url": f"{url}?token={plant('url query')}&sig={plant('url signature')}#{plant('url fragment')}",
                "headers": {
                    "Authorization": f"Bearer {plant('task authorization')}",
                    "Cookie": f"session={plant('task cookie')}",
                    "X-Api-Key": plant("task api key"),
                    "X-Whatever": plant("task header"),
                },
                "body": {"card": plant("task body")},
            },
            **more,
        }

    async def enqueue(self, path: str, **more: Any) -> str:
        status, text = await self.mine("POST", "/v1/enqueue", json=self.task(path, **more))
        assert status == 201, text
        task_id: str = json.loads(text)["task_id"]
        return task_id

    async def state(self, task_id: str) -> str:
        text = (await self.mine("GET", f"/v1/tasks/{task_id}?client_id={CLIENT}", told=False))[1]
        state: str = json.loads(text)["state"]
        return state

    async def settled(self, task_id: str, state: str) -> None:
        async def is_so() -> bool:
            return await self.state(task_id) == state

        await until(is_so, GENEROUS)

    async def malformed(self) -> None:
        """Requests that are refused, each with a secret in it: the answers go to who sent them, and into the log."""
        good = json.dumps(self.task("/ok"))
        bodies = [good[:-1], good.replace('"card"', "card"), good.replace('"task":', '"tusk":'), f'"{good[1:-1]}"']
        bodies += [good.replace('"headers": {', '"headers": {"X\\u0000": "1", '), good.replace("http://", "ftp://")]
        bodies += [
            good.replace(self.target.url, "http://169.254.169.254/"),
            good.replace('"headers": {', f'"headers": {{"Cookie": "{self.canaries.planted["task cookie"]}", '),
        ]
        for body in bodies:
            status, text = await self.mine("POST", "/v1/enqueue", data=body.encode())
            assert status == 400, (status, text, body)
        wrong = {"X-Admin-Key": self.canaries.plant("wrong admin key")}
        assert (await self.call("GET", "/admin/clients", headers=wrong))[0] == 401
        wrong = {"X-Client-Key": self.canaries.plant("wrong client key", f"gwk_{secrets.token_urlsafe(24)}")}
        assert (await self.call("GET", f"/v1/rate-limit?client_id={CLIENT}", headers=wrong))[0] == 401
        await self.call("GET", f"/v1/rate-limit?client_id={CLIENT}&api_key={self.canaries.plant('key in a query')}")
        await self.call("GET", f"/admin/clients?X-Admin-Key={self.canaries.plant('admin key in a query')}")
        await self.call("GET", f"/nowhere?key={self.canaries.planted['key in a query']}")
        await self.call("BREW", "/v1/enqueue", headers={"Authorization": self.canaries.planted["task authorization"]})
        await self.raw(f"GET / HTTP/1.1\r\nX-Admin-Key: {self.admin_key}\r\nbad header {self.admin_key}\r\n\r\n")
        await self.raw(f"GET /?{self.canaries.planted['key in a query']} HTTP/9.9\r\n\r\n")

    async def raw(self, request: str) -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, self.gateway.port)
        writer.write(request.encode())
        self.canaries.saw("raw", await asyncio.wait_for(reader.read(), GENEROUS))
        writer.close()

    async def look_everywhere(self, tasks: list[str]) -> None:
        """Every GET there is, as an operator, for every task; and what needs no key."""
        document = json.loads((await self.call("GET", "/openapi.json"))[1])
        gets = [path for path, operations in document["paths"].items() if "get" in operations]
        assert len([path for path in gets if path.startswith("/admin")]) > 8
        for path in gets:
            for task_id in tasks if "{task_id}" in path else tasks[:1]:
                filled = re.sub(r"\{[a-z_]+\}", "x", path.replace("{task_id}", task_id))
                known = {each["name"] for each in document["paths"][path]["get"].get("parameters", ())}
                query = "&".join(f"{name}={value}" for name, value in _IDS.items() if name in known)
                call = self.mine if path.startswith("/v1") else self.admin
                own = path == "/v1/tasks/{task_id}"  # a target's answer is its client's to see
                status, _ = await call("GET", f"{filled}?{query}", told=not own)
                assert status < 500, path
        for page in ("/metrics", "/docs", "/health", "/admin/ui"):
            assert (await self.call("GET", page))[0] == 200
        await self.stream(f"/admin/ui/events?watch=overview&watch=clients/usage?client_id={CLIENT}")

    async def stream(self, path: str) -> None:
        """What the dashboard is told first of each thing that it watches."""
        headers = {"X-Admin-Key": self.admin_key}
        async with self.session.get(self.gateway.url + path, headers=headers) as answer:
            assert answer.status == 200
            told = b""
            async with asyncio.timeout(GENEROUS):
                while told.count(b"data: ") < 2:
                    told += await answer.content.readany()
        self.canaries.saw(path, told)

    async def commands(self, task_id: str) -> None:
        """What the command line prints, of a running gateway and of settings."""
        env = plain_environment(GATEWAY_URL=self.gateway.url, **self.settings)
        broken = {"REDIS_URL": self.redis_url.replace("redis://", "rediss:/x/"), "ADMIN_API_KEY": f"{self.admin_key} x"}
        broken |= {"TASK_ENCRYPTION_KEYS": f"{self.settings['TASK_ENCRYPTION_KEYS']}x", "ADMIN_KEYS": "a:b"}
        broken |= {"OUTBOUND_PROXY": self.settings["OUTBOUND_PROXY"].replace("http", "socks5")}
        broken |= {"UPSTREAM_URL": f"http://service/?token={self.canaries.plant('upstream query')}"}
        wrong = {"REDIS_URL": self.redis_url.replace("@", f"{self.canaries.plant('wrong redis password')}@")}
        runs = [
            (env, "dead", "list", "--client", CLIENT),
            (env, "tasks", "get", task_id, "--client", CLIENT),
            (env, "audit", "--json"),
            (env, "check"),
            (env | broken, "check"),
            (env | broken, "serve"),
            (env | wrong, "check"),
            (env | {"ADMIN_API_KEY": self.canaries.planted["wrong admin key"]}, "audit"),
            (env, "doctor"),
        ]
        outputs = [await self.command(*run) for run in runs]
        assert len([text for text in outputs if "not allowed; allowed" in text]) == 2
        assert "refused" in outputs[-3]

    async def command(self, env: dict[str, str], *words: str) -> str:
        command = (sys.executable, "-m", "gateway", *words)
        pipe = asyncio.subprocess.PIPE
        done = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe)
        out, err = await done.communicate()
        self.canaries.saw(f"gateway {' '.join(words)}", text := f"{out.decode()}\n{err.decode()}")
        return text

    async def outage(self) -> None:
        """Redis frozen, then killed, then back without the password that the gateway has."""
        self.server.signal(signal.SIGSTOP)
        assert (await self.mine("POST", "/v1/enqueue", json=self.task("/ok")))[0] == 503
        self.server.signal(signal.SIGCONT)
        self.server.kill()
        for path in ("/readyz", f"/admin/dead?client_id={CLIENT}", "/admin/audit"):
            assert (await self.admin("GET", path))[0] == 503
        await self.server.start()
        assert (await self.admin("GET", "/readyz"))[0] == 503


async def test_no_secret_leaves_the_process(tmp_path: Path, target: Target) -> None:
    """Keys, passwords, task headers, bodies and queries are in no line of the log at debug, no metric, no span, no
    answer to an operator, no error, no document and no output of a command: over success, failure, retry, dead letter,
    refused and malformed requests, and an outage of Redis."""
    async with aiohttp.ClientSession() as session:
        world = World(tmp_path, target, session)
        canaries = world.canaries
        target.statuses |= {"/refuse": 404, "/again": 503, "/echo": 404}
        target.answer_headers["/ok"] = {"Set-Cookie": f"sid={canaries.plant('cookie of the target')}"}
        try:
            await world.start()
            await world.enrol()
            done = await world.enqueue("/ok")
            given_back = world.task("/echo")["task"]["headers"]
            del given_back["X-Whatever"]
            target.bodies["/echo"] = json.dumps(given_back).encode()
            target.bodies["/refuse"] = b"a target's own words"
            dead = [await world.enqueue(path) for path in ("/refuse", "/echo")]
            dead.append(await world.enqueue("http://nowhere.example/", max_retry=0))  # the proxy does not answer
            waits = [await world.enqueue("/again"), await world.enqueue("/ok", delay=3600)]
            await world.mine(
                "POST", "/v1/enqueue/batch", json={"client_id": CLIENT, "tasks": [_item(world), _item(world)]}
            )
            await world.settled(done, "succeeded")
            for task_id in dead:
                await world.settled(task_id, "dead")
            await world.settled(waits[0], "retrying")
            # Planted where it counts: the target got them.
            arrived = next(call for call in target.calls if call["path"].startswith("/ok"))
            assert arrived["headers"]["X-Whatever"] == canaries.planted["task header"]
            assert canaries.planted["url query"] in arrived["path"]
            assert arrived["body"].decode() == json.dumps(
                {"card": canaries.planted["task body"]}, separators=(", ", ": ")
            )
            answer = json.loads((await world.mine("GET", f"/v1/tasks/{dead[1]}?client_id={CLIENT}", told=False))[1])
            assert canaries.planted["task cookie"] in answer["last_attempt"]["body"]
            assert "a target's own words" in (await world.admin("GET", f"/admin/dead?client_id={CLIENT}"))[1]
            await world.malformed()
            await world.look_everywhere([done, *dead, *waits])
            await world.commands(dead[0])
            await world.outage()
        finally:
            await asyncio.to_thread(world.gateway.stop)
            world.server.kill()
        log = (tmp_path / "gateway.log").read_text()
        canaries.saw("the log", log)
        spans = [call["body"] for call in target.calls if call["path"].startswith("/collector")]
        for each in spans:
            canaries.saw("a span", each)
        assert {"DEBUG", "WARNING"} <= set(re.findall(r'"level":"([A-Z]+)"', log))
        assert spans
        assert "Traceback" not in log
        assert not canaries.leaks()


def _item(world: World) -> dict[str, Any]:
    item = world.task("/ok")
    del item["client_id"]
    return item
