"""The dashboards as pages of this machine: the panels that Grafana gets, without Grafana."""
