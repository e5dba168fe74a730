"""Side-by-side benchmarks: all peers alternate in one run, so that ratios hold on other machines. Figures: docs/."""
