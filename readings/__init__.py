"""The schema of a reading, its checks, its encodings, and the keys and filters of its stored form.

Imports neither a broker nor a database driver; `bson` is the encoding that both carry.
"""
