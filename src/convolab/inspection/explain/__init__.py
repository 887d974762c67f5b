"""Saliency maps and their checks."""
