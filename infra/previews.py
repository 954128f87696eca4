"""Preview environments: one service's image each, in a namespace of its own. Takes the settings alone."""

from __future__ import annotations

from components.processes.preview_environment import PreviewEnvironment, PreviewEnvironmentArgs
from infra.settings import Settings


def create_previews(settings: Settings) -> None:
    """Register the environments that the stage lists."""
    for preview in settings.previews:
        PreviewEnvironment(
            preview.name,
            PreviewEnvironmentArgs(image=preview.image, port=preview.port, expires_on=preview.expires_on),
        )
