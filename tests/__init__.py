"""Tests of davfs, one folder per tier, nearest the cause first (see CONTRIBUTING.md)."""
