"""What passes between the keeper and its sources and stores: nothing shows a secret."""

from __future__ import annotations

from tokenadapter.interchange import Credential, Snapshot


def test_unless_it_says_so_a_credential_neither_ends_by_its_use_nor_by_a_refusal() -> None:
    credential = Credential("client", "s3cr3t")
    assert not credential.single_use
    assert not credential.first
    assert not credential.refusal_is_final


def test_no_secret_is_shown() -> None:
    credential = Credential("password", "s3cr3t")
    snapshot = Snapshot({"token": {"access_token": "s3cr3t"}}, "7-nonce", 5.0)
    assert repr([credential, snapshot]) == "[<Credential password>, <Snapshot tag='7-nonce'>]"
    assert "s3cr3t" not in f"{credential} {snapshot}"
