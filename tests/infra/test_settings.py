"""Mistakes in a stage's configuration: each is one line with the file, the path and what would be right."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from infra.configuration import from_engine, parse, read_stage_file
from kilo.errors import BadInput
from tests.infra.mistakes import MISTAKES, Config

ROOT = Path(__file__).parents[2]


def config_of(stage: str) -> Config:
    return YAML(typ="safe").load(ROOT / f"Pulumi.{stage}.yaml")["config"]


@pytest.fixture
def config() -> Config:
    return deepcopy(config_of("dev"))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_file_path_and_what_would_be_right(mistake: str) -> None:
    stage, change, path, right = MISTAKES[mistake]
    config = deepcopy(config_of(stage))
    change(config)
    with pytest.raises(BadInput) as caught:
        parse(config, stage, f"Pulumi.{stage}.yaml")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"Pulumi.{stage}.yaml: {path}: ")
    assert right in line


@pytest.mark.parametrize("stage", ["dev", "stage", "prod"])
def test_each_stage_file_is_right(stage: str) -> None:
    settings = read_stage_file(ROOT / f"Pulumi.{stage}.yaml")
    assert settings.stage == stage
    assert {tenant.tier for tenant in settings.tenants} == {"gold", "silver", "bronze"}


@pytest.mark.parametrize("stage", ["dev", "stage"])
def test_nothing_is_locked_for_ever_outside_prod(stage: str) -> None:
    settings = read_stage_file(ROOT / f"Pulumi.{stage}.yaml")
    assert settings.backups.primary.lock_mode == settings.audit.lock_mode == "governance"
    assert not settings.backups.secondary.locked


def test_a_lock_for_ever_needs_an_explicit_setting_even_in_prod() -> None:
    config = deepcopy(config_of("prod"))
    del config["kilo:backups"]["primary"]["lock_mode"]
    del config["kilo:backups"]["secondary"]["locked"]
    settings = parse(config, "prod", "Pulumi.prod.yaml")
    assert settings.backups.primary.lock_mode == "governance"
    assert not settings.backups.secondary.locked


def test_credentials_in_a_misplaced_url_are_not_shown(config: Config) -> None:
    config["kilo:database"]["url_secret_id"] = "postgresql://kilo:hunter2@db:5432/kilo"
    with pytest.raises(BadInput) as caught:
        parse(config, "dev", "Pulumi.dev.yaml")
    assert "hunter2" not in str(caught.value)
    assert "@db:5432" in str(caught.value)


def test_all_mistakes_are_reported_at_once(config: Config) -> None:
    config["kilo:tenants"][0]["tier"] = "platinum"
    config["kilo:bus"]["replicas"] = 2
    config["aws:region"] = "frankfurt"
    with pytest.raises(BadInput) as caught:
        parse(config, "dev", "Pulumi.dev.yaml")
    assert len(str(caught.value).splitlines()) == 3


def test_all_broken_rules_are_reported_at_once(config: Config) -> None:
    config["kilo:tenants"][1]["id"] = "acme"
    config["kilo:backups"]["lock_days"] = 30
    with pytest.raises(BadInput) as caught:
        parse(config, "dev", "Pulumi.dev.yaml")
    assert len(str(caught.value).splitlines()) == 2


def test_a_stage_of_another_name_is_refused(config: Config) -> None:
    with pytest.raises(BadInput, match=r"stack name: .*dev, stage or prod"):
        parse(config, "production", "Pulumi.production.yaml")


@pytest.mark.parametrize("name", ["prod-1", "prod-x", "prod-", "prod-100"])
def test_a_group_of_tenants_is_numbered_from_two(config: Config, name: str) -> None:
    with pytest.raises(BadInput, match=r"stack name: .*such as prod-2"):
        parse(config, name, f"Pulumi.{name}.yaml")


def test_a_group_of_prods_tenants_keeps_prods_rules(config: Config) -> None:
    config["kilo:protect"] = False
    with pytest.raises(BadInput, match=r"Pulumi.prod-2.yaml: kilo:protect: prod keeps keys"):
        parse(config, "prod-2", "Pulumi.prod-2.yaml")


def test_the_engine_passes_structures_as_json(config: Config) -> None:
    import json

    passed = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    assert from_engine(passed, "dev") == parse(config, "dev", "Pulumi.dev.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"Pulumi.dev.yaml: can't be read"):
        read_stage_file(tmp_path / "Pulumi.dev.yaml")


def test_a_file_that_is_no_yaml_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text("config:\n  kilo:bus: {\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"Pulumi.dev.yaml:3: not YAML"):
        read_stage_file(file)


def test_a_file_without_settings_says_where_they_belong(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text("runtime: python\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"Pulumi.dev.yaml: config: missing"):
        read_stage_file(file)


def test_a_duplicate_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text("config:\n  kilo:protect: true\n  kilo:protect: false\n", encoding="utf-8")
    with pytest.raises(
        BadInput, match=r"Pulumi.dev.yaml:3: kilo:protect stands here a second time; keep one"
    ):
        read_stage_file(file)


@pytest.mark.parametrize(("right", "wrong"), [("kilo:tenants", "kio:tenants"), ("aws:region", "aws:regoin")])
def test_a_misspelt_key_of_another_namespace_is_pointed_at(config: Config, right: str, wrong: str) -> None:
    config[wrong] = config.pop(right)
    with pytest.raises(BadInput, match=f"{right}: missing.*the file has '{wrong}'"):
        parse(config, "dev", "Pulumi.dev.yaml")


def test_an_omitted_setting_comes_from_the_tier(config: Config) -> None:
    tenants = {tenant.id: tenant for tenant in parse(config, "dev", "Pulumi.dev.yaml").resolved_tenants}
    assert tenants["acme"].limit.requests_per_second == 500
    assert tenants["umbrella"].limit.requests_per_second == 300
    assert tenants["umbrella"].timeout_ms == tenants["acme"].timeout_ms
