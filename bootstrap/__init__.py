"""A second, small Pulumi project: what has to be there before the first deployment of a stage."""
