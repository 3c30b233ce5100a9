"""Tests of the file-system layer, part by part, over a verified fake server and a real disk."""
