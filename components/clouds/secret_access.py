"""Secrets of AWS Secrets Manager: how one is named in a policy, and what reading it takes."""

from __future__ import annotations

READ_SECRET = ("secretsmanager:GetSecretValue",)


def secret_arn(region: str, account: str, name: str) -> str:
    """The ARN of the secret of this name, as a pattern: AWS puts a hyphen and six characters behind a name.

    https://docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_iam-policies.html
    """
    return f"arn:aws:secretsmanager:{region}:{account}:secret:{name}-??????"
