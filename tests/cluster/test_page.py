"""The page on clusters: what can be copied from it fits what reads it.

The manifest of a RayJob is checked against the fields of KubeRay's custom resource, and of the pods in it: those that
the page uses and their neighbours, by the names, kinds and needs that KubeRay 1.6 gives them (its reference of
`ray.io/v1`, and the schema `ray-operator/config/crd/bases/ray.io_rayjobs.yaml`). A field that is not among them is
refused, as the API server would do.
"""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.scripts.scripts import cli as ray_cli

import cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M)
CLUSTER_FILE, MANIFEST = (text for language, text in BLOCKS if language == "yaml")
OURS = cli.main.commands
SCRIPTS = [text for language, text in BLOCKS if language == "sh"]


def record(needed: str = "", **fields: Any) -> dict[str, Any]:
    """An object with these fields and no other. needed: names of those that may not be missing."""
    return {"type": "object", "properties": fields, "required": needed.split(), "additionalProperties": False}


def listed(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def mapped(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": of}


TEXT, YES, COUNT, NUMBER = ({"type": kind} for kind in ("string", "boolean", "integer", "number"))
QUANTITY = {
    "anyOf": [
        COUNT,
        TEXT | {"pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9.]+))?$"},
    ]
}
NAMES = mapped(TEXT)
METADATA = record(name=TEXT, namespace=TEXT, labels=NAMES, annotations=NAMES)
CONTAINER = record(
    "name",
    name=TEXT,
    image=TEXT,
    imagePullPolicy=TEXT,
    command=listed(TEXT),
    args=listed(TEXT),
    workingDir=TEXT,
    env=listed(record("name", name=TEXT, value=TEXT, valueFrom={"type": "object"})),
    resources=record(limits=mapped(QUANTITY), requests=mapped(QUANTITY)),
    volumeMounts=listed(record("name mountPath", name=TEXT, mountPath=TEXT, readOnly=YES, subPath=TEXT)),
)
VOLUME = record(
    "name",
    name=TEXT,
    persistentVolumeClaim=record("claimName", claimName=TEXT, readOnly=YES),
    emptyDir=record(medium=TEXT, sizeLimit=QUANTITY),
)
POD = record(
    "containers",
    containers=listed(CONTAINER) | {"minItems": 1},
    volumes=listed(VOLUME),
    nodeSelector=NAMES,
    serviceAccountName=TEXT,
    restartPolicy=TEXT,
    tolerations=listed(record(key=TEXT, operator=TEXT, value=TEXT, effect=TEXT, tolerationSeconds=COUNT)),
)
TEMPLATE = record(metadata=METADATA, spec=POD)
GROUP = {"template": TEMPLATE, "rayStartParams": NAMES, "resources": NAMES, "labels": NAMES}
WORKERS = record(
    "groupName maxReplicas minReplicas rayStartParams template",
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    idleTimeoutSeconds=COUNT,
    numOfHosts=COUNT,
    **GROUP,
)
CLUSTER = record(
    "headGroupSpec",
    rayVersion=TEXT,
    authOptions=record(mode={"enum": ["disabled", "token"]}, secretName=TEXT, enableK8sTokenAuth=YES),
    enableInTreeAutoscaling=YES,
    headGroupSpec=record("rayStartParams template", serviceType=TEXT, enableIngress=YES, **GROUP),
    workerGroupSpecs=listed(WORKERS),
)
JOB = record(
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    backoffLimit=COUNT,
    activeDeadlineSeconds=COUNT,
    shutdownAfterJobFinishes=YES,
    ttlSecondsAfterFinished=COUNT,
    suspend=YES,
    clusterSelector=NAMES,
    metadata=NAMES,
    entrypointNumCpus=NUMBER,
    entrypointNumGpus=NUMBER,
    rayClusterSpec=CLUSTER,
)
RAY_JOB = record(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=METADATA,
    spec=JOB,
)


def test_the_manifest_fits_kuberays_schema():
    manifest = yaml.safe_load(MANIFEST)
    jsonschema.validate(manifest, RAY_JOB)
    cluster = manifest["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize(
    "written, instead",
    [
        ("rayClusterSpec", "rayCluster"),
        ("maxReplicas: 8", "maxReplica: 8"),
        ("replicas: 8", "replicas: eight"),
        ("memory: 64Gi", "memory: 64 GB"),
        ('num-cpus: "0"', "num-cpus: 0"),
        ("mode: token", "mode: tokens"),
        ("mountPath", "path"),
        ("ray.io/v1", "ray.io/v1alpha1"),
    ],
)
def test_what_does_not_fit_is_found(written, instead):
    assert written in MANIFEST
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(MANIFEST.replace(written, instead)), RAY_JOB)


def test_the_cluster_file_fits_rays_schema():
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text("utf-8"))
    jsonschema.validate(yaml.safe_load(CLUSTER_FILE), schema)


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_run_in_a_shell_can_be_parsed(script):
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert done.returncode == 0 and not done.stderr


def words_of_all() -> list[list[str]]:
    """The words of every line of the page that starts a command, also of those inside of YAML and of quotes."""
    commands = yaml.safe_load(CLUSTER_FILE)
    lines = [*commands["head_start_ray_commands"], *commands["worker_start_ray_commands"]]
    lines += [yaml.safe_load(MANIFEST)["spec"]["entrypoint"]]
    for script in SCRIPTS:
        lines += script.replace("\\\n", " ").splitlines()
    return [shlex.split(line.replace("'", ""), comments=True) for line in lines]


def options_after(program: str, words: list[str]) -> tuple[str, set[str]]:
    """The command of a program that a line calls, and its options; none of what that command calls in turn."""
    at = [word == program or word.endswith(f"/bin/{program}") for word in words].index(True)
    command, *further = words[at + 1 :]
    ends = [further.index(word) for word in ("--", "cd") if word in further]
    return command, {word for word in further[: min(ends, default=None)] if word.startswith("--")}


def test_the_commands_have_these_options():
    """Ours, and Ray's; `symmetric-run` takes those of `start` too."""
    called: list[str] = []
    for words in words_of_all():
        for program, commands in (("ray", ray_cli.commands), ("cli.py", OURS), ("logit-scoring", OURS)):
            if not any(word == program or word.endswith(f"/bin/{program}") for word in words):
                continue
            command, options = options_after(program, words)
            known = options_of(commands[command])
            if command == "symmetric-run":
                known |= options_of(ray_cli.commands["start"])
            assert options <= known, words
            called.append(command)
    assert called.count("score") == 5
    assert {*called} == {"score", "get-auth-token", "start", "stop", "up", "exec", "down", "symmetric-run"}


def options_of(command: Any) -> set[str]:
    return {name for option in command.params for name in option.opts}
