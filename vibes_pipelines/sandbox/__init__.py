"""Stand-ins for the outside systems, each speaking its real protocol.

The product never imports this room. The sandbox answers to the Vibes documentation, not to our
clients: it imports nothing of theirs and they nothing of it, so that a misreading of the contract
cannot hide on both sides.
"""
