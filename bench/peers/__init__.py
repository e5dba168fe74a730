"""What one would otherwise take: whole systems as their libraries' documentation teaches them, for the benches."""
