"""one question or figure of the paper a file"""
