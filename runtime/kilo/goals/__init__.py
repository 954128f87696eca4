"""The sprint's goals and risks, each measured on the running stage: what can't be known is never green."""
