"""The acceptance evidence: one signed file that an auditor checks without the stage."""
