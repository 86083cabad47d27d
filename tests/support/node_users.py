"""Users as a node's agent knows them."""

from services.node_agent.readers import User

ADA = User(1000, frozenset({1000}))
BOB = User(1001, frozenset({1001}))
