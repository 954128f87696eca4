"""What is seen of the platform: scrape targets, rules, alert routes and dashboards."""
