"""The embedded default behind the providers: real servers and a node on one machine."""
