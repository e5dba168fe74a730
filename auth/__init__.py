"""AUTH → MYSQL: accounts, devices and the tokens that all other services trust.

In: sign-ups, log-ins and device registrations over HTTP. Out: JWTs, the public keys that verify them, rows in MySQL.
"""
