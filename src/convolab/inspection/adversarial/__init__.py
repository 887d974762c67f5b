"""Fooling images and whether they transfer."""
