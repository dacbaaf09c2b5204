"""from kernels to priors"""
