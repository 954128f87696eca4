"""What the platform says of itself: metric names, rules, alerts, dashboards and traces."""
