"""What lies in deploy/ and the image, used as an operator would: each script against a real gateway."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from as_user import BIN, ROOT, Gateway, fetch, free_port, plain_environment

ADMIN_KEY = "key-of-the-test"
SCRIPTS = ("deploy/seed_clients.sh", "deploy/test_rate_limiting.sh", ".ci/run")
JSON_TYPE = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that asks for an admin key."""
    with Gateway(tmp_path_factory.mktemp("g"), ADMIN_API_KEY=ADMIN_KEY) as running:
        yield running


def run(command: list[str], *, seconds: float = 60, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """The command in the repository's root, both streams in ``stdout``."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=plain_environment(**env),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )


def tier_of(gateway: Gateway, client_id: str) -> str | None:
    """The client's tier as the operators' API tells it, None where there is no such client."""
    url = f"{gateway.url}/admin/clients/get?client_id={client_id}"
    status, text = fetch(url, headers={"X-Admin-Key": ADMIN_KEY})
    return json.loads(text)["tier"] if status == 200 else None


def test_seed_clients_sets_every_line(gateway: Gateway, tmp_path: Path) -> None:
    """Lines of id:tier from a file become clients; comments, empty lines and line ends do not matter."""
    lines = tmp_path / "clients"
    lines.write_text("# tenants\n\nseed-one:free\r\n  seed-two:premium \nseed-three:enterprise")
    done = run(["deploy/seed_clients.sh", str(lines)], GATEWAY_URL=f"{gateway.url}/", ADMIN_API_KEY=ADMIN_KEY)
    assert done.returncode == 0, done.stdout
    assert "3 set, 0 failed" in done.stdout
    tiers = [tier_of(gateway, name) for name in ("seed-one", "seed-two", "seed-three")]
    assert tiers == ["free", "premium", "enterprise"]


def test_seed_clients_names_the_lines_that_failed(gateway: Gateway) -> None:
    """A line that is none and a tier that is none are named by number, the rest is set; it exits 1."""
    done = run(
        ["deploy/seed_clients.sh"],
        stdin="seed-four:basic\nno tier here\nseed-five:platinum\n",
        GATEWAY_URL=gateway.url,
        ADMIN_API_KEY=ADMIN_KEY,
    )
    assert done.returncode == 1
    assert "1 set, 2 failed" in done.stdout
    assert re.search(r"FAIL +line 2: expected id:tier", done.stdout)
    assert re.search(r"FAIL +line 3: .*enterprise.* 400", done.stdout), done.stdout
    assert tier_of(gateway, "seed-four") == "basic"
    assert tier_of(gateway, "seed-five") is None


def test_seed_clients_says_that_the_key_is_wrong(gateway: Gateway) -> None:
    """Without the right key nothing is set, the 401 is shown, and the key itself is not."""
    wrong = "not-the-key"
    done = run(["deploy/seed_clients.sh"], stdin="seed-six:free\n", GATEWAY_URL=gateway.url, ADMIN_API_KEY=wrong)
    assert done.returncode == 1
    assert "Unauthorized" in done.stdout
    assert wrong not in done.stdout
    assert tier_of(gateway, "seed-six") is None


def test_seed_clients_needs_a_file_that_is_there() -> None:
    """A misspelt file name is told at once, before anything is called."""
    done = run(["deploy/seed_clients.sh", "no-such-file"])
    assert done.returncode == 2
    assert "no-such-file" in done.stdout


def test_rate_limiting_script_passes(gateway: Gateway) -> None:
    """Against a gateway every step of the script passes, and its client is gone afterwards."""
    done = run(["deploy/test_rate_limiting.sh"], GATEWAY_URL=gateway.url, ADMIN_API_KEY=ADMIN_KEY)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 11, done.stdout
    assert all(line.startswith("PASS") for line in lines)
    status, text = fetch(f"{gateway.url}/admin/clients", headers={"X-Admin-Key": ADMIN_KEY})
    assert status == 200
    assert "rate-limit-test" not in text


def test_rate_limiting_script_fails_where_it_should(gateway: Gateway) -> None:
    """With the wrong key, and without a gateway, the script says FAIL and exits 1."""
    wrong = run(["deploy/test_rate_limiting.sh"], GATEWAY_URL=gateway.url, ADMIN_API_KEY="wrong")
    assert wrong.returncode == 1
    assert "FAIL  a client of tier free is created" in wrong.stdout
    nobody = run(["deploy/test_rate_limiting.sh"], GATEWAY_URL=f"http://127.0.0.1:{free_port()}")
    assert nobody.returncode == 1
    assert "FAIL  no gateway answers" in nobody.stdout


def test_k6_load_test_passes(gateway: Gateway) -> None:
    """A short run of the load test sees 201 and 429 and nothing else, and leaves no client behind."""
    settings: dict[str, Any] = {"VUS": "5", "RAMP": "1s", "DURATION": "2s", "ADMIN_API_KEY": ADMIN_KEY}
    command = [str(BIN / "k6"), "run", "--no-usage-report", "--no-color", "--quiet", "deploy/k6/load_test.js"]
    done = run(command, GATEWAY_URL=gateway.url, **settings)
    assert done.returncode == 0, done.stdout
    assert re.search(r"enqueue_admitted\.*: [1-9]", done.stdout), done.stdout
    assert re.search(r"enqueue_refused\.*: [1-9]", done.stdout), done.stdout
    assert tier_of(gateway, "k6-load-0") is None


def test_k6_load_test_fails_without_a_gateway() -> None:
    """The load test's thresholds are real: with nobody to answer it exits non-zero."""
    settings: dict[str, Any] = {"VUS": "1", "RAMP": "1s", "DURATION": "1s"}
    settings["GATEWAY_URL"] = f"http://127.0.0.1:{free_port()}"
    done = run([str(BIN / "k6"), "run", "--no-usage-report", "--quiet", "deploy/k6/load_test.js"], **settings)
    assert done.returncode != 0


def test_ab_payload_is_accepted(gateway: Gateway) -> None:
    """The payload for ab is a valid enqueue body."""
    payload = (ROOT / "deploy/ab/payload.json").read_bytes()
    status, text = fetch(f"{gateway.url}/v1/enqueue", method="POST", body=payload, headers=JSON_TYPE)
    assert status == 201, text


@pytest.mark.skipif(shutil.which("ab") is None, reason="ab (apache2-utils) is not installed")
def test_ab_runs_with_the_payload(gateway: Gateway) -> None:
    """ab completes its requests with the payload, all of them answered."""
    url = f"{gateway.url}/v1/enqueue"
    payload = "deploy/ab/payload.json"
    done = run(["ab", "-q", "-n", "20", "-c", "4", "-p", payload, "-T", "application/json", url])
    assert done.returncode == 0, done.stdout
    assert re.search(r"Complete requests: +20\n", done.stdout), done.stdout
    assert "Non-2xx responses" not in done.stdout


def test_demo_ends_by_itself_with_everything_delivered() -> None:
    """`make demo`'s script delivers what was admitted, shows refusals of the free client, and ends with 0."""
    done = run([sys.executable, "deploy/demo.py"], seconds=100, COLUMNS="120")
    assert done.returncode == 0, done.stdout
    free = next(line for line in done.stdout.splitlines() if "demo-free" in line)
    assert re.findall(r"\d+", free) == ["1", "10", "10", "110", "0", "1", "10"]
    assert "no client had more calls open than its tier allows" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_bash(script: str) -> None:
    """Each script can be started by its name and parses."""
    assert (ROOT / script).stat().st_mode & 0o111
    assert (ROOT / script).read_text().startswith("#!/usr/bin/env bash\n")
    assert run(["bash", "-n", script]).returncode == 0


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_pass_shellcheck(script: str) -> None:
    """shellcheck finds nothing in the scripts."""
    done = run(["shellcheck", script])
    assert done.returncode == 0, done.stdout


def compose_service(name: str) -> str:
    """The text of one service of the compose file."""
    services = (ROOT / "deploy/docker-compose.yml").read_text().split("\nservices:\n")[1].split("\nvolumes:\n")[0]
    found = re.search(rf"^  {name}:\n((?:    .*\n|\n)+)", services, re.MULTILINE)
    assert found, name
    return found[1]


def test_compose_publishes_on_loopback_only() -> None:
    """Every published port is bound to 127.0.0.1, the gateway's is 8080, and Valkey has none."""
    text = (ROOT / "deploy/docker-compose.yml").read_text()
    published = re.findall(r'^ +- "([\d.:]+)"$', text, re.MULTILINE)
    assert "127.0.0.1:8080:8080" in published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert "ports:" not in compose_service("valkey")


def test_compose_valkey_keeps_what_was_accepted() -> None:
    """Valkey asks for a password, writes an append-only file to a volume, and evicts nothing."""
    valkey = compose_service("valkey")
    for wanted in ("--requirepass", "--appendonly yes", "--maxmemory-policy noeviction", "valkey-data:/data"):
        assert wanted in valkey


def test_compose_works_without_an_env_file() -> None:
    """Every variable has a value of its own, and gateway and Valkey agree on the password's."""
    text = (ROOT / "deploy/docker-compose.yml").read_text()
    variables = re.findall(r"(?<!\$)\$\{([^}]+)\}", text)
    assert variables
    assert all(":-" in variable for variable in variables)
    assert len({variable for variable in variables if variable.startswith("REDIS_PASSWORD")}) == 1
    assert "env_file" not in text


def test_compose_services_are_checked_and_admin_is_reachable() -> None:
    """All three services have a healthcheck; Docker's networks may call the operators' API."""
    assert all("healthcheck:" in compose_service(name) for name in ("gateway", "valkey", "prometheus"))
    assert re.search(r"ADMIN_ALLOWED_IPS: .*172\.16\.0\.0/12", compose_service("gateway"))
    assert "gateway:8080" in (ROOT / "deploy/prometheus/prometheus.yml").read_text()


def test_compose_file_is_valid() -> None:
    """Compose itself takes the file, where it is installed."""
    if shutil.which("docker") is None or run(["docker", "compose", "version"]).returncode:
        pytest.skip("docker compose is not installed")
    done = run(["docker", "compose", "-f", "deploy/docker-compose.yml", "config", "--quiet"])
    assert done.returncode == 0, done.stdout


def test_image_is_non_root_and_checked() -> None:
    """The image runs as a numeric user, listens on all its addresses, keeps its data in a volume, checks
    itself, and installs nothing whose hash is not locked."""
    text = (ROOT / "Dockerfile").read_text()
    user = re.search(r"^USER (\d+):(\d+)$", text, re.MULTILINE)
    assert user
    assert int(user[1]) > 0
    for wanted in ("HOST=0.0.0.0", "GATEWAY_DATA_DIR=/data", "VOLUME /data", "/livez"):
        assert wanted in text
    assert 'ENTRYPOINT ["gateway", "serve"]' in text
    assert len(re.findall(r"--require-hashes -r", text)) == len(re.findall(r"install .*-r ", text)) == 2


def test_image_copies_only_what_the_builder_gets() -> None:
    """.dockerignore lets everything pass that the Dockerfile copies from the checkout."""
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert sorted(name for line in copied for name in line.split()) == sorted(allowed)
    assert all((ROOT / name).exists() for name in allowed)
