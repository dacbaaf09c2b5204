"""Stages, their folders and their processes; nothing here knows about networks."""
