"""The image contains what the code needs, and no more."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest
import yaml

from services.__main__ import _parser
from shared.runtime.setting_names import PREFIX
from shared.runtime.settings import load_settings
from shared.version import PYTHON, VERSION, build_line
from tests.deploy.files import (
    CHART,
    CHECKOUT,
    DEPLOY,
    PORTS,
    SETTINGS,
    Instruction,
    image_settings,
    instructions,
)
from tests.harness.all_in_one import all_in_one
from tests.harness.processes import Service, environment, free_port
from tests.harness.stack import Stack

DOCKERFILE = instructions((DEPLOY / "Dockerfile").read_text())
IGNORED = [
    line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if not line.startswith("#")
]
HEALTH_CHECK = DEPLOY / "health_check.py"


def the(name: str, stage: str = "runtime") -> Instruction:
    [only] = [i for i in DOCKERFILE if i.name == name and i.stage == stage]
    return only


def copied() -> dict[str, str]:
    """Each path of the checkout that the image contains, and its target."""
    words = [i.words.split() for i in DOCKERFILE if i.name == "COPY" and not i.words.startswith("--from=")]
    return {source: target for *sources, target in words for source in sources}


def exposed() -> list[int]:
    return [int(port) for port in the("EXPOSE").words.split()]


def test_copied_paths_exist_and_are_not_ignored() -> None:
    for source in copied():
        assert (CHECKOUT / source).exists(), source
        assert f"!{source}" in IGNORED, source
    assert IGNORED[0] == "*"
    assert {name.removeprefix("!") for name in IGNORED if name.startswith("!")} == set(copied())


def test_the_code_runs_with_the_copied_files_alone(tmp_path: Path) -> None:
    for source, target in copied().items():
        if (CHECKOUT / source).is_dir():
            shutil.copytree(CHECKOUT / source, tmp_path / target)
        else:
            shutil.copy(CHECKOUT / source, tmp_path / Path(target).name)

    words = [*the("ENTRYPOINT").command, "settings"]
    ran = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert words[0] == "python"
    assert ran.returncode == 0, ran.stderr
    assert "NOTIFY_REDIS_URL" in ran.stdout
    assert list((tmp_path / "shared").rglob("*.lua")), "the scripts are missing"


def test_dependencies_come_from_the_lock_by_hash() -> None:
    [install] = [
        i.words for i in DOCKERFILE if i.name == "RUN" and " install " in i.words and "pip" in i.words
    ]
    assert "--require-hashes" in install
    assert "-r /requirements.txt" in install
    assert copied()["requirements.txt"] == "/requirements.txt"


def test_the_base_image_has_the_locks_python() -> None:
    [base] = [i.words for i in DOCKERFILE if i.name == "ARG" and i.words.startswith("PYTHON=")]
    version = re.search(r"=python:(\d+\.\d+)-slim", base)
    locked = re.search(r"with Python (\d+\.\d+)", (CHECKOUT / "requirements.txt").read_text())
    assert version is not None
    assert locked is not None
    assert version[1] == locked[1]
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={version[1]}"
    bases = [i.words.split()[0] for i in DOCKERFILE if i.name == "FROM"]
    assert set(bases) == {"${PYTHON}", "dependencies"}


def test_image_and_chart_have_the_same_version() -> None:
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version


def test_labels_name_the_version() -> None:
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    assert f'org.opencontainers.image.version="{version}"' in the("LABEL").words
    assert version == VERSION


def test_every_process_says_which_build_it_runs(stack: Stack) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "services", "--version"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == build_line() + "\n"
    for service in (*stack.gateways, *stack.edges):
        assert text(service, "/livez") == f"ok\n{build_line()}\n"
        shown = f'notify_build_info{{python="{PYTHON}",revision="",version="{VERSION}"}} 1.0'
        assert shown in text(service, "/metrics")


def test_an_image_names_its_commit(tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "shared", tmp_path / "shared")
    [write] = [i.words for i in DOCKERFILE if i.name == "RUN" and "REVISION" in i.words]
    subprocess.run(
        ["sh", "-c", write], cwd=tmp_path, env={"REVISION": "1f2e3d", "PATH": os.defpath}, check=True
    )

    program = "from shared.version import build_line; print(build_line())"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert ran.stdout == f"notification-gateway {VERSION} (revision 1f2e3d, Python {PYTHON})\n"


@pytest.mark.long
def test_the_bill_of_materials_has_every_package_with_its_hashes() -> None:
    subprocess.run(["make", "sbom"], cwd=CHECKOUT, check=True)
    found = json.loads((CHECKOUT / "dist" / "sbom.cdx.json").read_text())["components"]

    listed = {
        f"{each['name']}=={each['version']}": {
            each_hash["content"] for ref in each["externalReferences"] for each_hash in ref["hashes"]
        }
        for each in found
    }

    assert listed == locked_hashes()


def locked_hashes() -> dict[str, set[str]]:
    """Every package of requirements.txt, `name==version`, and its SHA-256 hashes."""
    text = (CHECKOUT / "requirements.txt").read_text()
    parts = re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:]
    return {
        re.sub(r"\[.*\]", "", part.split()[0]): set(re.findall(r"--hash=sha256:(\w+)", part))
        for part in parts
    }


def test_it_runs_unprivileged_and_without_a_shell() -> None:
    user, group = the("USER").words.split(":")
    assert int(user) > 1000
    assert int(group) > 1000
    words = [*the("ENTRYPOINT").command, *the("CMD").command]
    assert words[:3] == ["python", "-m", "services"]
    assert _parser().parse_args(words[3:]).command == "all"


def test_its_ports_and_settings_match_the_code() -> None:
    assert exposed() == list(PORTS.values())
    assert set(image_settings()) <= SETTINGS
    settings = load_settings(image_settings())
    assert (settings.host, settings.log_format, settings.data_dir) == ("0.0.0.0", "json", Path("/data"))


def test_metrics_have_a_port_of_their_own() -> None:
    port = load_settings(image_settings()).metrics_port
    assert port is not None
    assert port not in PORTS.values()
    assert port not in exposed(), "`docker run -P` would publish it"


def test_all_in_the_image_keeps_metrics_off_its_public_port() -> None:
    own = image_settings() | {"NOTIFY_METRICS_PORT": str(free_port())}
    # These two name places of the container.
    del own["NOTIFY_HOST"], own["NOTIFY_DATA_DIR"]
    with all_in_one(**{name.removeprefix(PREFIX): value for name, value in own.items()}) as process:
        process.start()
        process.wait_ready()
        assert process.get("/metrics") == 404
        metrics = f"http://127.0.0.1:{own['NOTIFY_METRICS_PORT']}/metrics"
        with urllib.request.urlopen(metrics, timeout=20) as response:
            assert b"notify_redis_up" in response.read()


def test_the_layer_of_dependencies_does_not_depend_on_the_code() -> None:
    early = [i.words for i in DOCKERFILE if i.stage == "dependencies" and i.name == "COPY"]
    assert early == ["requirements.txt /requirements.txt"]


def text(service: Service, path: str) -> str:
    with urllib.request.urlopen(service.url + path, timeout=20) as response:
        return str(response.read(), "utf-8")


def check_health(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(HEALTH_CHECK), *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_health_check_is_in_the_image() -> None:
    words = the("HEALTHCHECK").command
    target = Path(the("WORKDIR").words) / copied()["deploy/health_check.py"]
    assert words == ["python", "-I", str(target)]


@pytest.mark.parametrize("name", ["gateway", "socket-edge"])
def test_the_health_check_passes_for_a_ready_service(stack: Stack, name: str) -> None:
    service: Service = stack.gateways[0] if name == "gateway" else stack.edges[0]
    setting = "PORT" if name == "gateway" else "EDGE_PORT"
    seen = check_health(name, **{setting: service.port})
    assert (seen.returncode, seen.stdout) == (0, f"{name} returned 200\n")


def test_the_health_check_fails_without_a_response() -> None:
    assert check_health("gateway", PORT=free_port()).returncode == 1


def test_the_health_check_reads_its_service_from_process_1() -> None:
    """Here process 1 is another program, so the check fails with an error."""
    seen = check_health()
    assert seen.returncode == 1
    assert "runs here" in seen.stderr


def test_the_health_check_has_every_port() -> None:
    module: dict[str, object] = {}
    exec(compile(HEALTH_CHECK.read_text(), str(HEALTH_CHECK), "exec"), {"__name__": "checked"}, module)
    ports = module["PORTS"]
    assert isinstance(ports, dict)
    assert {name: port for name, (_, port) in ports.items() if name != "all"} == PORTS
    assert {setting for setting, _ in ports.values()} <= SETTINGS
