"""Promotions that need a checkout: the gates of the stages' files, and what carries them out."""
