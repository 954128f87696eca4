"""What the engine runs for a preview's stack: its configuration in, its resources registered."""

from __future__ import annotations

import gc

import pulumi
from pydantic import ValidationError

from infra.configuration import PROJECT
from infra.previews.program import deploy
from infra.previews.settings import CONFIG_KEY, PreviewSettings


def main() -> None:
    """Deploy the preview that the stack's configuration describes."""
    gc.disable()  # As in the stage's program: it runs once and ends.
    given = pulumi.Config(PROJECT).require(CONFIG_KEY)
    try:
        settings = PreviewSettings.model_validate_json(given)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in wrong["loc"])
        message = f"{PROJECT}:{CONFIG_KEY}.{place}: {wrong['msg']}; kilo preview up writes it anew"
        raise pulumi.RunError(message) from None
    deploy(settings)


if __name__ == "__main__":
    main()
