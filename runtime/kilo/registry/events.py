"""Push events of Amazon ECR, as EventBridge puts them into the mirror's queue.

Format: https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html. A push without
a tag is an event, too: that is how signatures and attestations by digest arrive.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kilo.errors import BadInput
from kilo.registry.parsing import printable
from kilo.registry.reference import DIGEST_PATTERN, TAG_PATTERN


class _Detail(BaseModel):
    model_config = ConfigDict(frozen=True)

    result: str
    action: str = Field(alias="action-type")
    repository: str = Field(alias="repository-name")
    digest: str = Field(alias="image-digest", pattern=rf"^(?:{DIGEST_PATTERN.pattern})$")
    tag: str | None = Field(default=None, alias="image-tag", pattern=rf"^{TAG_PATTERN.pattern}$")


class PushEvent(BaseModel):
    """One push to the primary registry."""

    model_config = ConfigDict(frozen=True)

    source: Literal["aws.ecr"]
    time: datetime
    detail: _Detail

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an event.

        Raises:
            BadInput: it is not an ECR event; the first wrong field is named.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "event"
            msg = f"push event: {printable(place)}: {printable(first['msg'])}"
            raise BadInput(msg) from error

    @property
    def is_push(self) -> bool:
        """Whether something was pushed, rather than deleted or refused."""
        return self.detail.action == "PUSH" and self.detail.result == "SUCCESS"
