"""A finished run at work: what its networks say of bags that need no labels, and of which tiles."""
