"""MONGODB → PEOPLE: the readings of one owner, back in time and live, for programs and for eyes. Writes nothing."""
