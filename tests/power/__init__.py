"""The proof of power cuts: servers on a disk that forgets what was not synced, and an account of what they accepted."""
