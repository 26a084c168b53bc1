"""The SDK that agent programs install; a distribution of its own that needs no Django."""
