"""TLS for networkio: between a node's byte streams and its connections, the same for every driver.

::

    from networkio_asyncio import Node
    from networkio_tls import TLS

    tls = TLS("client-123.pem", "client-123.key", authority="ca.pem")
    async with Node("client-123", tls=tls) as node:
        ...

``TLS.self_signed()`` encrypts without a certificate authority, for nodes that prove who they are with a pre-shared key.
"""

from .settings import TLS, identity_of

__all__ = ["TLS", "identity_of"]
