"""What a node is made of, built or unpacked once and cached."""

from __future__ import annotations

from pathlib import Path

from sandbox.toolchain import debian
from sandbox.toolchain.cache import Recipe
from sandbox.toolchain.golang import go_program
from tests.kubernetes.programs import kubernetes, made

_MODULES = Path(__file__).parent / "modules"
NAMES = ("kubelet", "kube-proxy", "kube-scheduler", "kubectl")


def node_programs() -> Path:
    """The directory of the programs :data:`NAMES`."""
    return made(kubernetes("kubernetes-node", NAMES, "the node's programs, 8 minutes"))


def coredns() -> Path:
    """CoreDNS with the plugins that a cluster's names take."""
    summary = "CoreDNS from its Go module, 3 minutes"
    return made(_own("coredns", summary)) / "coredns"


def network_policies() -> Path:
    """kube-router's controller of network policies, and nothing else of it."""
    summary = "kube-router's network policies from its Go module, 5 minutes"
    return made(_own("network-policies", summary)) / "network-policies"


def runtime_root() -> Path:
    """A tree with ``/usr`` of a container runtime, of CNI's plugins and of what sets packet filters."""
    return made(
        debian.package(
            *("containerd", "runc", "libseccomp2", "containernetworking-plugins"),
            *(
                "iptables",
                "libxtables12",
                "libip4tc2",
                "libip6tc2",
                "libnfnetlink0",
                "libnetfilter-conntrack3",
            ),
            *(
                "nftables",
                "libnftables1",
                "libnftnl11",
                "libmnl0",
                "libjansson4",
                "libedit2",
                "libbsd0",
                "libmd0",
            ),
            *("ipset", "libipset13", "conntrack"),
            summary="a container runtime and packet filters from Debian's packages, 50 MB",
            disk_bytes=400_000_000,
        )
    )


def _own(name: str, summary: str) -> Recipe:
    return go_program(name, {name: "."}, summary=summary, disk_bytes=2_000_000_000, modules=_MODULES)
