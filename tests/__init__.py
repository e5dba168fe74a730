"""Tests of Tidegate; the folders mirror the tree."""
