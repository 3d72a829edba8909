"""Servers and tokens of others, which the tests start: oidc-provider, Authlib, SoftHSM."""
