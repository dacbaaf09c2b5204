"""cards, pages, the bundle and the Hub"""
