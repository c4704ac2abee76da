"""What ``ray up`` and the clouds would say to our three files, without a cloud or its libraries.

Ray's own schema leaves open what it hands on: the provider, the machines, the files. That is
closed here to the fields that we use, so that a typo is seen before anything is paid for.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).parents[2]
FILES = ("onprem", "aws", "gcp")
TEXT = {"type": "string", "minLength": 1}
FLAG = {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0}


def read(name: str) -> dict[str, Any]:
    """One of the files, with nothing shared between its parts."""
    return json.loads(json.dumps(yaml.safe_load((ROOT / "cluster" / f"{name}.yaml").read_text())))


def closed(**properties: Any) -> dict[str, Any]:
    """An object that has exactly these fields."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def listed(schema: Any) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1}


def optional(schema: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return schema | {"properties": schema["properties"] | properties}


MOUNTS = {"~/.ray/auth_token", "~/.rayfed-hn/machine", "~/.rayfed-hn/wheel"}
COMMON = {
    "cluster_name": {"const": "rayfed-hn"},
    "file_mounts": closed(**dict.fromkeys(MOUNTS, TEXT)),
}
COMMANDS = listed(TEXT)
STARTS = dict.fromkeys(
    ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"), COMMANDS
)
PROXY = {
    "ssh_user": {"const": "ubuntu"},
    "ssh_private_key": TEXT,
    "ssh_proxy_use_node_id": {"const": True},
    "ssh_proxy_command": TEXT,
}


def _cloud(provider: dict[str, Any], node: dict[str, Any], **spot: Any) -> dict[str, Any]:
    head = closed(resources=closed(CPU={"const": 2}), node_config=node)
    rented = {
        "max_workers": COUNT,
        "labels": closed(role={"enum": ["decode", "gpu"]}),
        "node_config": closed(**node["properties"], **spot),
    }
    inside = {"use_internal_ips": {"const": True}, "cache_stopped_nodes": {"const": False}}
    return closed(
        **COMMON,
        **STARTS,
        head_setup_commands=COMMANDS,
        max_workers=COUNT,
        upscaling_speed={"type": "number"},
        idle_timeout_minutes={"type": "number", "exclusiveMinimum": 0},
        provider=closed(**provider, **inside),
        auth=closed(**PROXY),
        head_node_type={"const": "head"},
        available_node_types=closed(
            head=head,
            decode=closed(resources=closed(CPU=COUNT), min_workers=COUNT, **rented),
            gpu=closed(
                resources=closed(CPU=COUNT, GPU={"const": 1}), min_workers={"const": 0}, **rented
            ),
        ),
    )


EBS = closed(VolumeSize=COUNT, VolumeType=TEXT, Encrypted={"const": True}, DeleteOnTermination=FLAG)
INSTANCE = closed(
    InstanceType={"pattern": r"^[a-z]\d[a-z]*\.\d*x?large$"},
    IamInstanceProfile=closed(Arn=TEXT),
    ImageId=TEXT,
    KeyName=TEXT,
    SubnetIds=listed(TEXT),
    SecurityGroupIds=listed(TEXT),
    MetadataOptions=closed(HttpTokens={"const": "required"}, HttpPutResponseHopLimit={"const": 1}),
    BlockDeviceMappings=listed(closed(DeviceName=TEXT, Ebs=EBS)),
)
DISK = closed(
    boot={"const": True},
    autoDelete={"const": True},
    type={"const": "PERSISTENT"},
    initializeParams=closed(diskSizeGb=COUNT, sourceImage=TEXT),
)
MACHINE = closed(
    machineType={"pattern": r"^[a-z]\d[a-z]?-[a-z]+-\d+$"},
    serviceAccounts=listed(closed(email={"pattern": "@"}, scopes=listed(TEXT))),
    disks=listed(DISK),
    # No accessConfigs: no public address.
    networkInterfaces=listed(closed(kind={"const": "compute#networkInterface"}, subnetwork=TEXT)),
    metadata=closed(
        items=listed(closed(key={"enum": ["ssh-keys", "block-project-ssh-keys"]}, value=TEXT))
    ),
    shieldedInstanceConfig=closed(enableVtpm=FLAG, enableIntegrityMonitoring=FLAG),
)
SPOT = closed(
    provisioningModel={"const": "SPOT"},
    instanceTerminationAction={"enum": ["DELETE", "STOP"]},
    onHostMaintenance={"const": "TERMINATE"},
)
SCHEMAS = {
    "onprem": closed(
        **COMMON,
        **STARTS,
        provider=closed(type={"const": "local"}, head_ip=TEXT, worker_ips=listed(TEXT)),
        auth=closed(ssh_user=TEXT, ssh_private_key=TEXT),
    ),
    "aws": _cloud(
        {"type": {"const": "aws"}, "region": TEXT},
        INSTANCE,
        InstanceMarketOptions=closed(MarketType={"const": "spot"}),
    ),
    "gcp": _cloud(
        {"type": {"const": "gcp"}}
        | dict.fromkeys(("project_id", "region", "availability_zone"), TEXT),
        MACHINE,
        scheduling=SPOT,
    ),
}


def complaints(name: str, document: dict[str, Any]) -> list[str]:
    """What is wrong with one of the files, Ray's own check apart."""
    validator = jsonschema.Draft202012Validator(SCHEMAS[name])
    found = [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)]
    return found or list(_commands(document))


def _commands(document: dict[str, Any]) -> Iterator[str]:
    """Commands use what is sent, start Ray as it should be, and show the dashboard to nobody."""
    setup = "\n".join(document["setup_commands"])
    for remote, local in document["file_mounts"].items():
        if remote.startswith("~/.rayfed-hn") and remote not in setup:
            yield f"nobody reads {remote}"
        if not local.startswith("~") and local != "dist" and not (ROOT / local).is_dir():
            yield f"file_mounts: there is no folder {local}"
    if "chmod 600 ~/.ray/auth_token" not in setup:
        yield "others can read the token"
    head, worker = (document[f"{who}_start_ray_commands"] for who in ("head", "worker"))
    if head[0] != "ray stop" or worker[0] != "ray stop":
        yield "what runs is not ended first"
    for option in ("--head", "--port=6379", "--dashboard-host=127.0.0.1", "--disable-usage-stats"):
        if option not in head[-1].split():
            yield f"the head starts without {option}"
    if "--autoscaling-config=~/ray_bootstrap_config.yaml" not in head[-1]:
        yield "the head starts nobody"
    if "--address=$RAY_HEAD_IP:6379" not in worker[-1]:
        yield "machines do not join the head"


def of_machines(**given: str) -> dict[str, str]:
    """What the shell of a machine finds in its environment, besides what it was given."""
    done = subprocess.run(
        ["bash", "-euc", f"source {ROOT}/cluster/machine/env.sh; env -0"],
        env={"HOME": "/home/ubuntu", "PATH": os.environ["PATH"]} | given,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)


def placeholders(text: str) -> set[str]:
    """What a user has to replace."""
    return set(re.findall(r"REPLACE-[A-Z]+(?:-[A-Z]+)*", text))
