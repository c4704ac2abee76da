"""Folders in object storage, worked on in a copy on the node's own disk."""
