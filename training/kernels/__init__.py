"""from networks and checkpoints to kernels"""
