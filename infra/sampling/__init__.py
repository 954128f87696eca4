"""What of a stage's spans is kept, why, and what is kept before all others."""
