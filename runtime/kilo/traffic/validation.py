"""Ask the real Envoy whether a rendered configuration is valid.

``envoy --mode validate`` reads the bootstrap alone and takes the files that it names on trust. So
everything is put into one bootstrap first, each part unchanged.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from kilo.errors import CheckFailed, Unreachable
from kilo.tenancy import Tenant
from kilo.traffic.clusters import render_clusters
from kilo.traffic.envoy import check_tenants, render_address_part, render_bootstrap
from kilo.traffic.limits import LIMITS, LIMITS_TYPE, render_limits_filter
from kilo.traffic.routes import render_route_configuration
from kilo.traffic.settings import GatewaySettings
from kilo.traffic.shedding import SHARES, render_shares_filter
from kilo.traffic.xds import Json, typed

_TIMEOUT_SECONDS = 60


def render_whole(tenants: Sequence[Tenant], settings: GatewaySettings, bind: str = "127.0.0.1") -> Json:
    """Put every rendered part into one static bootstrap; raises BadInput as ``render_files`` does."""
    check_tenants(tenants)
    whole = deepcopy(render_bootstrap(tenants, settings))
    own = deepcopy(render_address_part(tenants, settings, bind))
    del whole["dynamic_resources"], whole["layered_runtime"]
    clusters = [
        {key: value for key, value in cluster.items() if key != "@type"}
        for cluster in render_clusters(tenants, settings)["resources"]
    ]
    own["static_resources"]["clusters"].extend(clusters)
    chain = own["static_resources"]["listeners"][0]["filter_chains"][0]
    # The files of a certificate are where the gateway runs.
    chain.pop("transport_socket", None)
    manager = chain["filters"][0]["typed_config"]
    del manager["rds"]
    manager["route_config"] = render_route_configuration(tenants, settings)
    filters = {each["name"]: each for each in manager["http_filters"]}
    for name, rendered in (
        (LIMITS, render_limits_filter(tenants, settings)),
        (SHARES, render_shares_filter(tenants, settings)),
    ):
        del filters[name]["config_discovery"]
        filters[name]["typed_config"] = typed(LIMITS_TYPE, **rendered)
    return {**whole, **own}


def validate(whole: Json, envoy: str = "envoy") -> None:
    """Have ``envoy`` validate a whole bootstrap.

    Raises:
        CheckFailed: Envoy refuses the configuration; the message is Envoy's own.
        Unreachable: there is no such executable.
    """
    # Where it came with Kilo's packages, it is beside this Python, which need not be on PATH.
    beside = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    executable = shutil.which(envoy, path=beside)
    if executable is None:
        msg = f"{envoy}: not found; install Envoy or name the executable with --envoy"
        raise Unreachable(msg)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "whole.json")
        path.write_text(json.dumps(whole), encoding="utf-8")
        command = [executable, "--mode", "validate", "--config-path", str(path), "--log-level", "critical"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        msg = f"envoy refuses the configuration: {lines[-1] if lines else 'no reason given'}"
        raise CheckFailed(msg)
