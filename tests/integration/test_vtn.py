"""The grid operator's server against the description of OpenADR 3.1.0: every operation, used rightly and wrongly.

schemathesis does it. The description is the one that the OpenADR Alliance published, amended where it contradicts
itself (`amended.py`). What it warns of is so: there is no MQTT broker, so its twelve topics are never found, and the
operator may not write reports.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from penstock.sim.vtn import Client, Role, Vtn

from .amended import amended

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".venv" / "api" / "bin" / "schemathesis"
OURS = ROOT / "src" / "penstock" / "data" / "openadr3" / "openadr3.json"
THEIRS = ROOT / "tests" / "data" / "openadr3" / "openadr3.yaml"
CLIENTS = [Client("operator", "one secret", Role.BL), Client("site", "another", Role.VEN)]
EXAMPLES = 40  # of each operation and phase
AT_MOST = 240  # seconds

_TO_JSON = """
import json, sys, yaml
class Plain(yaml.SafeLoader):
    "times stay text"
resolvers = yaml.SafeLoader.yaml_implicit_resolvers
Plain.yaml_implicit_resolvers = {
    sign: [one for one in found if not one[0].endswith(":timestamp")] for sign, found in resolvers.items()
}
json.dump(yaml.load(open(sys.argv[1]), Plain), sys.stdout)
"""


def test_the_server_runs_by_the_description_as_it_was_published() -> None:
    said = subprocess.run(
        [PROGRAM.with_name("python"), "-c", _TO_JSON, THEIRS], check=True, capture_output=True, timeout=60
    )
    assert json.loads(said.stdout) == json.loads(OURS.read_text())


def prepared(vtn: Vtn, count: int = 200) -> dict[str, list[str]]:
    """So many objects of each kind, the private ones the site's; their ids by the name of the parameter."""
    operator, site = CLIENTS
    hear = [{"objects": ["EVENT"], "operations": ["CREATE"], "callbackUrl": "http://127.0.0.1:9/"}]
    found: dict[str, list[str]] = {}

    def create(name: str, kind: str, sent: dict[str, Any], owner: Client) -> str:
        made: str = vtn.objects.create(kind, sent, owner)["id"]
        found.setdefault(name, []).append(made)
        return made

    for number in range(count):
        program = create("programID", "PROGRAM", {"programName": f"program {number}"}, operator)
        event = create("eventID", "EVENT", {"programID": program, "intervals": []}, operator)
        create("reportID", "REPORT", {"eventID": event, "clientName": "site", "resources": []}, site)
        create("subscriptionID", "SUBSCRIPTION", {"clientName": "site", "objectOperations": hear}, site)
        ven = create("venID", "VEN", {"venName": f"site {number}"}, site)
        create("resourceID", "RESOURCE", {"resourceName": "pole", "venID": ven}, site)
    return found


def configured(known: dict[str, list[str]], client: Client) -> str:
    """Settings of the checker: most of the ids that it makes up are ids of what is there."""
    lists = {**known, "client_id": [client.id], "client_secret": [client.secret]}
    lines = [f"[dictionaries.{name}]\nvalues = {json.dumps(values)}" for name, values in lists.items()]
    lines.append("[parameters]")
    for name in lists:
        places = ("path", "body") if name in known else ("body",)
        lines.extend(f'"{place}.{name}" = {{ dictionary = "{name}", probability = 0.8 }}' for place in places)
    return "\n".join(lines) + "\n"


@pytest.mark.asyncio
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.role)
async def test_every_operation_is_as_described_to_each_role(client: Client, tmp_path: Path) -> None:
    described = tmp_path / "openadr3.json"
    described.write_text(json.dumps(amended(json.loads(OURS.read_text()))))
    vtn = Vtn(CLIENTS)
    url = await vtn.start()
    try:
        (tmp_path / "schemathesis.toml").write_text(configured(prepared(vtn), client))
        token = vtn.tokens.issue(client.id, client.secret)
        checker = await asyncio.create_subprocess_exec(
            PROGRAM, "run", described, "--url", url, "--header", f"Authorization: Bearer {token}", "--checks", "all",
            "--max-examples", str(EXAMPLES), "--continue-on-failure", "--generation-deterministic", "--no-color",
            cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(AT_MOST):
                said, _ = await checker.communicate()
        finally:
            if checker.returncode is None:
                checker.kill()
                await checker.wait()
    finally:
        await vtn.stop()
    (tmp_path / "said.txt").write_bytes(said)
    assert checker.returncode == 0, said.decode()[-8_000:]
    assert b"Tested: 45" in said
