"""Configuration files: what is accepted, and how what is not is explained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.config import load_config
from p2pdist.errors import UsageError


class Swarm(msgspec.Struct, frozen=True, kw_only=True):
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    directory: Path = Path("/var/lib/p2pdist")
    encrypt: bool = True
    rate: float | None = None


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    node: str
    address: str = ""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    addresses: list[str] = []
    upstreams: list[Upstream] = []


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    level: Literal["debug", "info"] = "info"
    swarm: Swarm = Swarm()
    link: Link = Link()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sample.toml"


def write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def test_a_file_becomes_a_frozen_value_with_defaults_where_it_is_silent(file: Path) -> None:
    sample = load_config(write(file, 'name = "a"\n[swarm]\nport = 6881\n'), Sample, {})
    assert sample == Sample(name="a", swarm=Swarm(port=6881))
    with pytest.raises(AttributeError):
        sample.name = "b"  # type: ignore[misc]


def test_a_path_in_the_home_of_a_user_who_is_not_there_is_explained(file: Path) -> None:
    write(file, 'name = "a"\n[swarm]\ndirectory = "~nobody-here/data"\n')
    with pytest.raises(UsageError, match=r"swarm\.directory"):
        load_config(file, Sample, {})


def test_a_relative_path_is_meant_from_the_directory_of_the_file(file: Path) -> None:
    sample = load_config(write(file, 'name = "a"\n[swarm]\ndirectory = "data"\n'), Sample, {})
    assert sample.swarm.directory == file.parent / "data"


def test_an_unknown_key_suggests_the_nearest_one(file: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(write(file, 'name = "a"\n[swarm]\nprot = 1\n'), Sample, {})
    assert str(caught.value) == f"{file}: unknown key swarm.prot; did you mean port?"


def test_an_unknown_key_like_no_other_lists_the_known_ones(file: Path) -> None:
    with pytest.raises(UsageError, match="the keys here are addresses, upstreams"):
        load_config(write(file, 'name = "a"\n[link]\nzzz = 1\n'), Sample, {})


def test_an_unknown_key_in_a_list_of_tables_is_found(file: Path) -> None:
    text = 'name = "a"\n[[link.upstreams]]\nnode = "n"\nadress = "x"\n'
    with pytest.raises(UsageError, match=r"unknown key link\.upstreams\.adress; did you mean address\?"):
        load_config(write(file, text), Sample, {})


def test_a_missing_key_says_where_to_add_it(file: Path) -> None:
    with pytest.raises(UsageError, match=r"sample\.toml: name is missing; add name = "):
        load_config(write(file, ""), Sample, {})
    with pytest.raises(UsageError, match=r"link\.upstreams\[0\]\.node is missing"):
        load_config(write(file, 'name = "a"\n[[link.upstreams]]\naddress = "x"\n'), Sample, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('swarm.port = "x"', r"swarm\.port: expected 'int', got 'str'"),
        ("swarm.port = 70000", r"swarm\.port: expected 'int' <= 65535"),
        ("swarm.directory = 3", r"swarm\.directory: expected a path"),
        ("level = 'loud'", r"level: invalid enum value 'loud'"),
        ("swarm = 3", r"swarm: expected 'object', got 'int'"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_was_expected(
    file: Path, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load_config(write(file, f'name = "a"\n{text}\n'), Sample, {})


def test_a_file_that_is_not_toml_says_in_which_line(file: Path) -> None:
    with pytest.raises(UsageError, match=r"is not TOML: .*line 2"):
        load_config(write(file, "name = 'a'\nswarm port 3\n"), Sample, {})


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "none.toml", Sample, {})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("P2PDIST_NAME", "b", Sample(name="b")),
        ("P2PDIST_SWARM_PORT", "99", Sample(name="a", swarm=Swarm(port=99))),
        ("P2PDIST_SWARM_ENCRYPT", "false", Sample(name="a", swarm=Swarm(encrypt=False))),
        ("P2PDIST_SWARM_RATE", "1.5", Sample(name="a", swarm=Swarm(rate=1.5))),
        ("P2PDIST_SWARM_DIRECTORY", "/srv", Sample(name="a", swarm=Swarm(directory=Path("/srv")))),
        ("P2PDIST_LINK_ADDRESSES", "a:1,b:2", Sample(name="a", link=Link(addresses=["a:1", "b:2"]))),
        ("P2PDIST_LINK_ADDRESSES", '["a,b"]', Sample(name="a", link=Link(addresses=["a,b"]))),
        ("P2PDIST_LINK_ADDRESSES", "", Sample(name="a")),
        ("P2PDIST_OTHER_TABLE", "1", Sample(name="a")),
        ("P2PDIST_TOKEN", "1", Sample(name="a")),
    ],
)
def test_the_environment_overrides_the_file_as_the_field_is_typed(
    file: Path, name: str, value: str, expected: Sample
) -> None:
    assert load_config(write(file, 'name = "a"\n'), Sample, {name: value}) == expected


def test_without_a_file_the_environment_says_everything() -> None:
    assert load_config(None, Sample, {"P2PDIST_NAME": "a"}) == Sample(name="a")
    with pytest.raises(UsageError, match="the configuration: name is missing"):
        load_config(None, Sample, {})


def test_a_variable_that_does_not_fit_is_named() -> None:
    with pytest.raises(UsageError, match=r"environment variable P2PDIST_SWARM_PORT: .*expected 'int'"):
        load_config(None, Sample, {"P2PDIST_NAME": "a", "P2PDIST_SWARM_PORT": "many"})


def test_a_misspelt_variable_of_a_known_table_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"P2PDIST_SWARM_PROT sets nothing; did you mean P2PDIST_SWARM_PORT"):
        load_config(None, Sample, {"P2PDIST_NAME": "a", "P2PDIST_SWARM_PROT": "1"})


@given(st.binary(max_size=200))
def test_any_file_is_read_or_explained(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(data)
    try:
        load_config(file, Sample, {})
    except UsageError as error:
        assert "any.toml" in str(error)


@given(st.sampled_from(["P2PDIST_SWARM_PORT", "P2PDIST_LINK_ADDRESSES", "P2PDIST_SWARM_RATE"]), st.text())
def test_any_variable_is_read_or_explained(name: str, value: str) -> None:
    environ: dict[str, Any] = {"P2PDIST_NAME": "a", name: value}
    try:
        load_config(None, Sample, environ)
    except UsageError as error:
        assert name in str(error)
