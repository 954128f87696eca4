"""What the workloads of a preview wrote: from the sandbox's files, or by kubectl."""

from __future__ import annotations

import re
import shutil
import subprocess

import typer

from components.pods.labels import NAME_LABEL
from infra.previews.request import Target
from infra.previews.settings import namespace_of
from kilo.errors import BadInput, Unreachable

_ID = "[bcdfghjklmnpqrstvwxz2456789]"
"""What Kubernetes makes random names of: no vowels, so that they are no words
(https://github.com/kubernetes/apimachinery/blob/master/pkg/util/rand/rand.go)."""
_SUFFIX = re.compile(rf"(?:-(?:\d+|{_ID}{{8,10}}|(?=\w*\d)[0-9a-f]{{8,10}}))?-{_ID}{{5}}$|-\d+$")


def print_logs(target: Target, preview: str, workload: str, lines: int) -> None:
    """Print the last ``lines`` of each of its pods' logs.

    Raises:
        BadInput: there is no such workload in the preview, or no such preview.
        Unreachable: there is no kubectl, or it can't reach the cluster.
    """
    namespace = namespace_of(preview)
    if target.is_here:
        folder = target.project / ".kilo" / "logs" / "pods" / namespace
        known = {each.name: each for each in sorted(folder.glob("*")) if each.is_dir()}
        pods = {pod: each for pod, each in known.items() if pod == workload or workload_of(pod) == workload}
        if not pods:
            names = ", ".join(sorted({workload_of(pod) for pod in known})) or "none; kilo preview list"
            msg = f"{preview}: no logs of '{workload}'; there are logs of: {names}"
            raise BadInput(msg)
        for pod, each in pods.items():
            for file in sorted(each.glob("*.log")):
                typer.echo(f"==> {pod} <==")
                text = file.read_text(encoding="utf-8", errors="replace").splitlines()
                typer.echo("\n".join(text[-lines:] if lines else []) or "(nothing yet)")
        return
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        msg = "kubectl: not on PATH; it shows the logs of a cluster's pods"
        raise Unreachable(msg)
    selected = ["--selector", f"{NAME_LABEL}={workload}", "--tail", str(lines), "--prefix"]
    done = subprocess.run([kubectl, "--namespace", namespace, "logs", *selected], check=False)
    if done.returncode:
        msg = f"{preview}: kubectl ended with {done.returncode}; its lines above say why"
        raise Unreachable(msg)


def workload_of(pod: str) -> str:
    """The workload of a pod, by the suffixes that controllers give: NAME-HASH-ID, NAME-ID, NAME-0."""
    return _SUFFIX.sub("", pod)
