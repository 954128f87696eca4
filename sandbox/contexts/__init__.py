"""The dev stage on a Kubernetes cluster that the user has, with the sandbox in the clouds' place.

The program is the same one, under the official provider. What it needs of this machine is one address that
the cluster's pods reach; what it needs of the cluster is a default storage class. Left out: the Prometheus
operator, whose kinds are defined here where they are missing and acted on by whoever installs it.
"""
