"""Ordinary programs working on a mount."""
