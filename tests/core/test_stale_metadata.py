"""A device whose signed metadata has expired on the admin server's side: it fetches, and installs nothing."""

from __future__ import annotations

import msgspec

from tests.core.test_deployment import Device, catalog_of, device_with, release

APP = release()


def expire(device: Device) -> list[str]:
    """What a device knows has become stale."""
    device.machine.handle_catalog(msgspec.structs.replace(catalog_of(APP), stale=True), device.now)
    return device.do()


def test_what_was_ordered_is_still_fetched_and_installed_only_once_the_metadata_is_fresh_again() -> None:
    device = device_with(APP)
    assert device.want(APP) == ["fetch app 1"]
    assert expire(device) == []
    assert device.task("d-app-1").stage == "fetching"
    assert device.fetched(APP) == []
    assert device.task("d-app-1").stage == "waiting"
    assert "has expired" in device.task("d-app-1").reason
    assert device.tick(86_400) == []
    assert device.learn(APP) == ["verify d-app-1.1"]
    assert device.verified("d-app-1.1") == ["install d-app-1.1"]


def test_an_artifact_that_is_being_verified_when_the_metadata_expires_is_not_installed() -> None:
    device = device_with(APP)
    device.want(APP)
    assert device.fetched(APP) == ["verify d-app-1.1"]
    assert expire(device) == []
    assert device.verified("d-app-1.1") == []
    assert device.learn(APP) == ["verify d-app-1.1"]


def test_an_installation_that_had_begun_is_brought_to_its_end() -> None:
    device = device_with(APP)
    device.want(APP)
    device.fetched(APP)
    assert device.verified("d-app-1.1") == ["install d-app-1.1"]
    assert expire(device) == []
    assert device.installed("d-app-1.1") == ["report d-app-1 installed"]


def test_an_installation_that_a_crash_interrupted_goes_on_with_stale_metadata() -> None:
    device = device_with(APP)
    device.want(APP)
    device.fetched(APP)
    device.verified("d-app-1.1")
    assert "verify d-app-1.1" in device.restart()
    assert expire(device) == []
    assert device.verified("d-app-1.1") == ["install d-app-1.1"]


def test_an_order_that_comes_while_the_metadata_is_stale_is_fetched_and_waits() -> None:
    device = Device()
    device.admit()
    assert expire(device) == []
    assert device.want(APP) == ["fetch app 1"]
    assert device.fetched(APP) == []
    assert device.machine.installed == {}
