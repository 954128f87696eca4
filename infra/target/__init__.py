"""Where a stage is deployed to: the accounts, the project and the cluster that the credentials lead to."""
