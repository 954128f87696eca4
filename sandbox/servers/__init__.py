"""Real servers that stand behind the sandbox's providers and pods."""
