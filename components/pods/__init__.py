"""What every pod is made of: its access, its hardening, and the four ways in which it runs."""
