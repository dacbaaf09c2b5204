"""networks by name, and how they are trained"""
