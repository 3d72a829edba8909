"""A bridge whose SDK is not installed says which extra brings it."""

from __future__ import annotations

import sys
from importlib import import_module, metadata

import pytest

from tokenadapter.extras import ExtraMissing

SDKS = {
    "azure": "azure.core.credentials",
    "botocore": "botocore.exceptions",
    "databricks": "databricks.sdk.credentials_provider",
    "google": "google.auth.credentials",
    "kiota": "kiota_abstractions.authentication",
    "pyiceberg": "pyiceberg.catalog.rest.auth",
}


@pytest.mark.parametrize("bridge", SDKS)
def test_without_its_sdk_a_bridge_names_the_extra(
    bridge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"tokenadapter.bridges.{bridge}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, SDKS[bridge], None)
    with pytest.raises(ExtraMissing, match=rf"pip install 'tokenadapter\[{bridge}\]'"):
        import_module(name)
    assert bridge in metadata.metadata("tokenadapter").get_all("Provides-Extra", [])
