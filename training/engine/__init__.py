"""the stage engine"""
