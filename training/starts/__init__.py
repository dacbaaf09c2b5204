"""how the convolutions of a network may start"""
