"""The channel between hospitals: the same sites and the same server, with a network in between.

The server listens; every site dials it over mutual TLS and holds one stream. Only ``listen`` and
``dial`` import gRPC, and its threads do nothing but fill queues.
"""
