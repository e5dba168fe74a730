"""E-mail: the SMTP server, what is mailed, and the addresses that their owners have confirmed."""
