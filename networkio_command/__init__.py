"""The ``networkio`` command: a program that uses the adapters, and nothing that they know of."""

__all__: list[str] = []
