"""Long runs: a fleet for hours (`make soak`), and an overload that ends; every reading is accounted for."""
