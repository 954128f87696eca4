"""The Pulumi engine on one machine: its language host, its environment, and its recovery after a kill."""
