"""Bundles in the forms that other engines load: an OPA bundle, Gatekeeper's objects."""
