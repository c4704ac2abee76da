"""A hospital that joins a finished federation: its own network, without training the others again.

It is given what the federation shares (the frozen hypernetwork, its base, the scale of features,
the networks of the sites) and works on its own ground; nothing of it leaves.
"""
