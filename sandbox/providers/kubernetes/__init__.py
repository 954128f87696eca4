"""The sandbox's ``kubernetes`` provider: the official one's semantics over the cluster's API.

It applies on the server's side, waits until workloads are ready, and previews by a dry run. It leaves out
what the platform does not use: Helm charts, YAML files, patches, several clusters.
"""
