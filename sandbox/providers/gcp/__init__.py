"""The sandbox's ``gcp`` provider: buckets on fake-gcs-server, everything else recorded.

What is recorded proves that the program says it consistently, and nothing of how Google Cloud behaves.
"""
