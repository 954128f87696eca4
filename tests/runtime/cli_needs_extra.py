"""A command whose module does not import without an extra, for test_cli."""

raise ModuleNotFoundError(name="confluent_kafka")
