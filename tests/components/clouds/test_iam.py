"""IAM policy documents: what may not be written into one."""

from __future__ import annotations

import pytest

from components.clouds.iam import Statement


@pytest.mark.parametrize(
    ("actions", "resources", "message"),
    [
        (["s3:*"], ["arn:aws:s3:::bucket"], "has a wildcard"),
        (["s3:GetObject"], ["*"], "only for actions that know no resource"),
        (["ecr:GetAuthorizationToken", "s3:GetObject"], ["*"], "only for actions that know no resource"),
    ],
)
def test_a_wildcard_in_iam_is_refused_where_it_is_written(
    actions: list[str], resources: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Statement("Wide", actions, resources)
