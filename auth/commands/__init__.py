"""Commands to devices: in the users' database, to the gateways and back, and kept ones until they are delivered."""
