"""A Kubernetes of one node: strict validation, objects on disk, controllers, pods as local processes.

It answers the part of the Kubernetes API that the platform uses, with the API server's own rules and
messages. It leaves out what one user on one machine has no use for: authorisation, admission webhooks,
watches over HTTP, several nodes. Network policies, disruption budgets and autoscalers are validated and
kept, not enforced.
"""
