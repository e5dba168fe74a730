"""AUTH → MYSQL: accounts, devices and the tokens that every other service trusts.

In: sign-ups, log-ins and device registrations over HTTP. Out: JWTs, the public keys that check them, rows in MySQL.
"""
