"""Pulumi providers of the sandbox: the engine's true semantics over real servers on this machine."""
