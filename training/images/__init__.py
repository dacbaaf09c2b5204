"""images as tensors"""
