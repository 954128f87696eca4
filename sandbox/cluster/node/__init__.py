"""The node: runs pods as local processes, as the kubelet runs them as containers.

What a container runtime isolates is stood in for by text and addresses: mount paths become directories
under ``.kilo/pods``, cluster names become loopback addresses, each pod binds to an address of its own.
Not enforced, and only recorded: memory and CPU limits, user ids, read-only file systems, network policies.
"""
