"""The sandbox's ``aws`` provider: boto3 on a moto server."""
